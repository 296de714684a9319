"""The ledger: what every node cost, and what it would have cost on demand. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starling.infra.records import Market, NodeIntent, Offer
from starling.orchestrator.facts import NodeFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """What one node cost."""

    node: str
    offer: Offer
    start: float | None
    end: float | None
    """None: it still runs."""
    seconds: float
    cost: float
    """US dollars, at the market's prices while it ran, as far as they were looked at."""
    on_demand_cost: float | None
    """What the same time would have cost on demand; None: unknown."""

    @property
    def saving(self) -> float | None:
        return self.on_demand_cost - self.cost if self.on_demand_cost is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """All bills of a run."""

    cost: float
    on_demand_cost: float | None
    """None: unknown for every node. A node for which it is unknown counts as what it cost."""

    @property
    def saving(self) -> float | None:
        return self.on_demand_cost - self.cost if self.on_demand_cost is not None else None


def ledger(nodes: Iterable[NodeFacts], now: float) -> list[Bill]:
    """The bill of every node, up to now."""
    return [_bill(node, now) for node in nodes]


def cost(nodes: Iterable[NodeFacts], now: float) -> float:
    """US dollars so far."""
    return sum(_cost(node, now) for node in nodes)


def total(bills: Iterable[Bill]) -> Total:
    bills = list(bills)
    known = any(bill.on_demand_cost is not None for bill in bills)
    full = sum(bill.cost if bill.on_demand_cost is None else bill.on_demand_cost for bill in bills)
    return Total(cost=sum(bill.cost for bill in bills), on_demand_cost=full if known else None)


def price_now(node: NodeFacts) -> float:
    """US dollars an hour that a node was last seen to cost."""
    return node.intent.prices[-1].price_per_hour if node.intent.prices else node.offer.price_per_hour


def dearest_price(intent: NodeIntent, highest: float | None) -> float:
    """US dollars an hour that a node may come to cost. On the spot market a price moves while a machine runs, but
    hardly ever above the full one; `highest` is what the user would pay."""
    bought = intent.instance_id is not None or intent.launched_at is not None
    offers = (intent.offer,) if bought or not intent.candidates else intent.candidates
    return max(_ceiling(offer, highest) for offer in offers)


def _ceiling(offer: Offer, highest: float | None) -> float:
    if offer.market is Market.ON_DEMAND:
        return offer.price_per_hour
    bounds = [price for price in (highest, offer.on_demand_price) if price is not None]
    return max(offer.price_per_hour, min(bounds)) if bounds else offer.price_per_hour


def on_demand_price(offer: Offer) -> float | None:
    """US dollars an hour of the same machine at the full price, if it is known."""
    if offer.on_demand_price is not None:
        return offer.on_demand_price
    return offer.price_per_hour if offer.market is Market.ON_DEMAND else None


def _bill(node: NodeFacts, now: float) -> Bill:
    offer, seconds = node.offer, _seconds(node, now)
    full = on_demand_price(offer)
    return Bill(
        node=node.node,
        offer=offer,
        start=node.billed_from,
        end=_end(node),
        seconds=seconds,
        cost=_cost(node, now),
        on_demand_cost=seconds / 3600 * full if full is not None else None,
    )


def _cost(node: NodeFacts, now: float) -> float:
    """US dollars: each price for as long as it held."""
    seconds, price, spent, done = _seconds(node, now), node.offer.price_per_hour, 0.0, 0.0
    for change in node.intent.prices:
        until = min(max(change.at - (node.billed_from or 0.0), done), seconds)
        spent, done, price = spent + (until - done) * price, until, change.price_per_hour
    return (spent + (seconds - done) * price) / 3600


def _seconds(node: NodeFacts, now: float) -> float:
    """How long it has run, or ran."""
    start, end = node.billed_from, _end(node)
    return max(0.0, (now if end is None else end) - start) if start is not None else 0.0


def _end(node: NodeFacts) -> float | None:
    return node.ended_at if not node.up else None
