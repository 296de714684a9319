"""On-demand prices: from AWS's Pricing API, and where that gives none from a dated table that ships with us.

Nothing is guessed: a price of one region never stands for another's, and each says where it is from.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from starling.infra.errors import CredentialsExpired, ProviderError

if TYPE_CHECKING:
    from mypy_boto3_pricing.type_defs import FilterTypeDef

    from starling.infra.providers.aws.clients import AwsClients

TABLE_FILE = "on_demand_prices.json"
TYPES_A_CALL = 50
"""A filter's value may have 1024 characters."""
PLAIN_LINUX = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class OnDemandPrice:
    price: float
    """US dollars an hour."""
    dated: str | None = None
    """Of which day the shipped table's price is; None: AWS says so now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnDemandPrices:
    by_type: dict[str, OnDemandPrice]
    """What is missing is not known."""
    trouble: str | None = None
    """Why AWS gave none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedTable:
    date: str
    source: str
    regions: dict[str, dict[str, float]]


def read_on_demand_prices(clients: AwsClients, types: Sequence[str]) -> OnDemandPrices:
    """What these types cost on demand in the clients' region. Raises CredentialsExpired only: without an answer from
    AWS the table serves."""
    try:
        live, trouble = _ask_aws(clients, types), None
    except CredentialsExpired:
        raise
    except ProviderError as error:
        live, trouble = {}, str(error)
    table = shipped_table()
    shipped = table.regions.get(clients.region, {})
    found = {name: OnDemandPrice(price=price) for name, price in live.items()}
    for name in types:
        if name not in found and name in shipped:
            found[name] = OnDemandPrice(price=shipped[name], dated=table.date)
    return OnDemandPrices(by_type=found, trouble=trouble)


def price_note(shown: Iterable[OnDemandPrice | None], trouble: str | None) -> str | None:
    """What the user should know about where the prices that are shown are from; with the table's marked by *."""
    why = f": {trouble}" if trouble else ""
    if any(price is not None and price.dated for price in shown):
        table = f"the table of {shipped_table().date} that ships with Starling"
        return f"prices marked * are from {table}; AWS's Pricing API gave none{why}"
    return f"on-demand prices are not known{why}" if trouble else None


@functools.cache
def shipped_table() -> ShippedTable:
    document = json.loads(resources.files(__package__).joinpath(TABLE_FILE).read_text())
    return ShippedTable(date=document["date"], source=document["source"], regions=document["regions"])


def shipped_names() -> list[str]:
    """All types the table knows, in any region."""
    return sorted({name for prices in shipped_table().regions.values() for name in prices})


def _ask_aws(clients: AwsClients, types: Sequence[str]) -> dict[str, float]:
    """Prices by type; what AWS does not price is missing."""
    calls = [types[first : first + TYPES_A_CALL] for first in range(0, len(types), TYPES_A_CALL)]
    return {name: price for some in calls for name, price in _ask_for(clients, some)}


def _ask_for(clients: AwsClients, types: Sequence[str]) -> Iterator[tuple[str, float]]:
    filters: list[FilterTypeDef] = [
        {"Type": "ANY_OF", "Field": "instanceType", "Value": ",".join(types)},
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": clients.region},
        *({"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in PLAIN_LINUX.items()),  # type: ignore[list-item]
    ]
    with clients.named("read on-demand prices"):
        pages = clients.pricing.get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=filters)
        for page in pages:
            for entry in page["PriceList"]:
                yield from _price_of(json.loads(entry) if isinstance(entry, str) else entry)


def _price_of(product: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """A product's price by the hour. Free ones are no offers: they stand for capacity that is paid for elsewhere."""
    for term in product["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            price = float(dimension["pricePerUnit"].get("USD", 0.0))
            if price > 0 and dimension["unit"] == "Hrs":
                yield product["product"]["attributes"]["instanceType"], price
