"""What can be bought in one region now, best first.

STEPS of a look: the zones; the types that serve the node; where each is offered; spot prices; on-demand prices;
placement scores. Each is one call and its further pages, whatever the number of offers, and its answer is kept for as
long as it is good.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from starling.infra.clock import Clock
from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.catalog import (
    InstanceType,
    Zone,
    choose,
    read_offerings,
    read_types,
    read_zones,
)
from starling.infra.providers.aws.choice import AwsChoice
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.on_demand_prices import (
    OnDemandPrice,
    OnDemandPrices,
    price_note,
    read_on_demand_prices,
)
from starling.infra.providers.aws.placement import Scores, read_scores
from starling.infra.providers.aws.spot_prices import Place, read_current_prices
from starling.infra.records import Market as MarketKind
from starling.infra.records import Offer

PROVIDER = "aws"
SPOT_PRICES_KEPT = 300.0
"""EC2 changes spot prices a few times a day."""
CATALOG_KEPT = 3600.0
ON_DEMAND_KEPT = 3600.0
TROUBLE_KEPT = 300.0
"""AWS may give prices again sooner than the table would be replaced."""
SCORES_KEPT = 900.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """One type in one zone on one market, with all that is known for judging it."""

    instance_type: InstanceType
    zone: str
    market: MarketKind
    price: float
    """US dollars an hour."""
    on_demand: OnDemandPrice | None
    score: int | None = None
    """The zone's placement score, for all types of this look together."""

    @property
    def offer(self) -> Offer:
        kind = self.instance_type
        return Offer(
            provider=PROVIDER,
            instance_type=kind.name,
            zone=self.zone,
            market=self.market,
            price_per_hour=self.price,
            gpus=kind.gpus,
            device=kind.device,
            gpu_memory=kind.gpu_memory,
            on_demand_price=self.on_demand.price if self.on_demand else None,
        )


class Market:
    """The market of the clients' region. Not thread-safe."""

    def __init__(self, clients: AwsClients, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        """What the user should know about the answers so far; each is said once."""
        return list(self._notes)

    def offers(self, section: AwsChoice, gpus: int, market: MarketKind) -> list[Offer]:
        """What can be bought for one node with so many GPUs, best first. Spot prices are at most 5 minutes old.
        Raises Misconfigured if no machine can serve, and other ProviderErrors."""
        return [quote.offer for quote in self.quotes(section, gpus, market)]

    def quotes(self, choice: AwsChoice, gpus: int, market: MarketKind) -> list[Quote]:
        """The same with what else is known. What costs more than the choice's max_price is left out."""
        types, zones, offered = self._catalog(choice, gpus)
        types = _sold(types, market)
        on_demand = self._on_demand(types)
        if market is MarketKind.SPOT:
            prices: dict[Place, float] = self._spot_prices(types)
            scores = self._scores(types, zones).by_zone
        else:
            prices, scores = _everywhere(on_demand, zones), {}
            self._note(_unpriced(types, on_demand))
        found = [
            Quote(
                instance_type=one,
                zone=zone.name,
                market=market,
                price=prices[one.name, zone.name],
                on_demand=on_demand.by_type.get(one.name),
                score=scores.get(zone.name),
            )
            for one in types
            for zone in zones
            if (one.name, zone.name) in offered and (one.name, zone.name) in prices
        ]
        self._note(price_note((quote.on_demand for quote in found), on_demand.trouble))
        return best_first(quote for quote in found if choice.max_price is None or quote.price <= choice.max_price)

    def _catalog(self, choice: AwsChoice, gpus: int) -> tuple[list[InstanceType], list[Zone], set[Place]]:
        def read() -> tuple[list[InstanceType], list[Zone], set[Place]]:
            zones = read_zones(self._clients, choice.zones)
            types = choose(read_types(self._clients, choice.instance_types, gpus), choice, gpus)
            return types, zones, read_offerings(self._clients, [one.name for one in types])

        key = ("catalog", choice.zones, choice.instance_types, choice.gpu_memory, gpus)
        return self._kept(key, CATALOG_KEPT, read)

    def _spot_prices(self, types: list[InstanceType]) -> dict[Place, float]:
        names = _names(types)
        return self._kept(
            ("spot", names), SPOT_PRICES_KEPT, lambda: read_current_prices(self._clients, names, self._clock.now())
        )

    def _on_demand(self, types: list[InstanceType]) -> OnDemandPrices:
        names = _names(types)

        def read() -> OnDemandPrices:
            return read_on_demand_prices(self._clients, names)

        def good_for(prices: OnDemandPrices) -> float:
            return TROUBLE_KEPT if prices.trouble else ON_DEMAND_KEPT

        return self._kept(("on-demand", names), good_for, read)

    def _scores(self, types: list[InstanceType], zones: list[Zone]) -> Scores:
        names = _names(types)
        scores = self._kept(("scores", names, *zones), SCORES_KEPT, lambda: read_scores(self._clients, names, zones))
        self._note(scores.note)
        return scores

    def _note(self, text: str | None) -> None:
        if text:
            self._notes[text] = None

    def _kept(self, key: Hashable, good_for: float | Callable[[T], float], read: Callable[[], T]) -> T:
        """The answer as it was read at most so many seconds ago. Errors are not kept."""
        now = self._clock.now()
        known = self._answers.get(key)
        if known is None or now >= known[0]:
            answer = read()
            seconds = good_for(answer) if callable(good_for) else good_for
            known = self._answers[key] = (now + seconds, answer)
        kept: T = known[1]
        return kept


def best_first(quotes: Iterable[Quote]) -> list[Quote]:
    """Cheapest first; at the same price where capacity is likelier; then by name, to be the same each time."""
    return sorted(quotes, key=lambda quote: (quote.price, -(quote.score or 0), quote.instance_type.name, quote.zone))


def _everywhere(on_demand: OnDemandPrices, zones: list[Zone]) -> dict[Place, float]:
    """On-demand prices hold in a whole region."""
    return {(name, zone.name): known.price for name, known in on_demand.by_type.items() for zone in zones}


def _unpriced(types: list[InstanceType], on_demand: OnDemandPrices) -> str | None:
    missing = [name for name in _names(types) if name not in on_demand.by_type]
    return f"no on-demand price is known of {', '.join(missing)}: not offered" if missing else None


def _sold(types: list[InstanceType], market: MarketKind) -> list[InstanceType]:
    sold = [one for one in types if market.value in one.markets]
    if not sold:
        raise Misconfigured(f"AWS does not sell {', '.join(_names(types))} on the {market.value} market")
    return sold


def _names(types: list[InstanceType]) -> tuple[str, ...]:
    return tuple(one.name for one in types)
