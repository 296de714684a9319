"""Offers as a market has them."""

from __future__ import annotations

from starling.infra.providers.fake import FakeProvider
from starling.infra.records import Market, Offer


def spot(
    instance_type: str = "g5.xlarge",
    zone: str = "a",
    price: float = 0.4,
    *,
    device: str | None = "A10G",
    on_demand_price: float | None = 1.0,
) -> Offer:
    return Offer(
        provider=FakeProvider.name,
        instance_type=instance_type,
        zone=zone,
        market=Market.SPOT,
        price_per_hour=price,
        gpus=1,
        device=device,
        on_demand_price=on_demand_price,
    )


def on_demand(instance_type: str = "g5.xlarge", zone: str = "a", price: float = 1.0, device: str = "A10G") -> Offer:
    offer = spot(instance_type, zone, price, device=device, on_demand_price=price)
    return offer.but(market=Market.ON_DEMAND)
