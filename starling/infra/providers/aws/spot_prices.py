"""Spot prices: what a type costs in a zone now, and what it has cost.

EC2 tells changes. A price holds from its change to the next one, so a history is a step function. EC2 also tells the
last change before the asked-for start, which is the price in effect then; a type and zone without any entry cannot be
had on the spot market there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starling.infra.providers.aws.clients import AwsClients

PRODUCT = "Linux/UNIX"
KEPT_DAYS = 90
"""EC2 forgets older prices."""
DAY = 86_400.0

Place = tuple[str, str]
"""Instance type and zone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    at: float
    """Seconds since the epoch."""
    price: float
    """US dollars an hour from then on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The prices of one type in one zone from the first change on, at most from `start` to `end`."""

    instance_type: str
    zone: str
    start: float
    end: float
    steps: tuple[Change, ...]
    """In order; each differs from the one before it, and none is before `start`. Never empty."""

    @property
    def now(self) -> float:
        return self.steps[-1].price

    @property
    def lowest(self) -> float:
        return min(step.price for step in self.steps)

    @property
    def highest(self) -> float:
        return max(step.price for step in self.steps)

    @property
    def mean(self) -> float:
        """Weighted by how long each price held."""
        return self.mean_between(self.steps[0].at, self.end)

    @property
    def changes(self) -> int:
        """How often the price changed within the time; the price at its start is no change."""
        return len(self.steps) - 1

    def mean_between(self, start: float, end: float) -> float:
        """The time-weighted mean of a part; of a moment, the price then. The first price also holds for the time
        before it."""
        held = [(price, min(end, until) - max(start, since)) for price, since, until in self._spans()]
        parts = [(price, seconds) for price, seconds in held if seconds > 0]
        if not parts:
            return next((step.price for step in reversed(self.steps) if step.at <= start), self.steps[0].price)
        return sum(price * seconds for price, seconds in parts) / sum(seconds for _, seconds in parts)

    def _spans(self) -> Iterator[tuple[float, float, float]]:
        yield from ((step.price, step.at, after.at) for step, after in pairwise(self.steps))
        yield self.steps[-1].price, self.steps[-1].at, self.end


def history(*, instance_type: str, zone: str, changes: Sequence[Change], start: float, end: float) -> History:
    """From entries in any order, of which one may lie before `start`; there must be one at least. Entries that repeat
    a price are no changes."""
    steps: list[Change] = []
    for change in sorted(changes, key=lambda change: change.at):
        moved = Change(at=max(change.at, start), price=change.price)
        if steps and steps[-1].at == moved.at:
            steps.pop()
        if not steps or steps[-1].price != moved.price:
            steps.append(moved)
    return History(instance_type=instance_type, zone=zone, start=start, end=end, steps=tuple(steps))


def read_current_prices(clients: AwsClients, types: Sequence[str], now: float) -> dict[Place, float]:
    """What each type costs in each zone of the region now; what is missing cannot be had."""
    told = _read_changes(clients, types, now, now)
    return {place: max(changes, key=lambda change: change.at).price for place, changes in told.items()}


def read_history(clients: AwsClients, types: Sequence[str], *, days: float, now: float) -> dict[Place, History]:
    """The last so many days, at most KEPT_DAYS, of each type in each zone of the region."""
    start = now - days * DAY
    told = _read_changes(clients, types, start, now)
    return {
        (name, zone): history(instance_type=name, zone=zone, changes=changes, start=start, end=now)
        for (name, zone), changes in told.items()
    }


def _read_changes(clients: AwsClients, types: Sequence[str], start: float, end: float) -> dict[Place, list[Change]]:
    changes: dict[Place, list[Change]] = {}
    with clients.named("read spot prices"):
        pages = clients.ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=list(types),  # type: ignore[arg-type]  # the stubs list the types of their day
            ProductDescriptions=[PRODUCT],
            StartTime=datetime.fromtimestamp(start, UTC),
            EndTime=datetime.fromtimestamp(end, UTC),
        )
        for page in pages:
            for entry in page["SpotPriceHistory"]:
                change = Change(at=entry["Timestamp"].timestamp(), price=float(entry["SpotPrice"]))
                changes.setdefault((entry["InstanceType"], entry["AvailabilityZone"]), []).append(change)
    return changes
