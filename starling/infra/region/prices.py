"""What machines cost in the emulated cloud: read from a file, moved by a script, told as EC2 tells it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starling.infra.errors import UsageError

DEFAULT_FILE = Path(__file__).with_name("prices.json")
STEP_SECONDS = 6 * 3600.0
"""A spot price changes so often, at times that are the same whoever asks when."""
SWING = 0.08
"""By how much at most a price of the past was away from the file's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A spot price from a moment on."""

    at: float
    price: float


class PriceBook:
    """Prices and placement scores of a file. Types that it does not name are not sold."""

    def __init__(self, file: Path = DEFAULT_FILE) -> None:
        """Raises UsageError if the file is not one of prices."""
        try:
            book = json.loads(file.read_text())
            self._types: dict[str, dict[str, float]] = book["types"]
            self._zones: dict[str, float] = book["zones"]
            self._scores: dict[str, int] = book["scores"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is no file of prices: {error}; {DEFAULT_FILE.name} shows the form") from error
        self._moved: dict[tuple[str, str], list[Change]] = {}

    @property
    def types(self) -> list[str]:
        return sorted(self._types)

    def on_demand(self, instance_type: str) -> float | None:
        known = self._types.get(instance_type)
        return None if known is None else known["on_demand"]

    def spot(self, instance_type: str, zone: str, now: float) -> float | None:
        """The price now; None: not sold there."""
        changes = self.history(instance_type, zone, now, now)
        return changes[-1].price if changes else None

    def set_spot(self, instance_type: str, zone: str, price: float, now: float) -> None:
        """From now on; keeps the past."""
        self._moved.setdefault((instance_type, zone), []).append(Change(at=now, price=price))

    def history(self, instance_type: str, zone: str, start: float, end: float) -> list[Change]:
        """Oldest first: the changes from `start` to `end`, and the one that held at the start."""
        base = self._base(instance_type, zone)
        if base is None:
            return []
        moved = self._moved.get((instance_type, zone), [])
        first = moved[0].at if moved else math.inf
        quiet = [change for change in _walk(base, instance_type, start, end) if change.at < first]
        told = [*quiet, *(change for change in moved if change.at <= end)]
        before = [change for change in told if change.at <= start]
        return [*before[-1:], *(change for change in told if change.at > start)]

    def score(self, zone: str) -> int:
        return self._scores.get(zone[-1], 1)

    def _base(self, instance_type: str, zone: str) -> float | None:
        known, factor = self._types.get(instance_type), self._zones.get(zone[-1])
        return None if known is None or factor is None else known["spot"] * factor


def _walk(base: float, instance_type: str, start: float, end: float) -> Iterator[Change]:
    """A gentle up and down around the base. A type moves alike in all zones, so that the cheapest one always is."""
    phase = zlib.crc32(instance_type.encode()) / 2**32
    step = math.floor(start / STEP_SECONDS)
    while step * STEP_SECONDS <= end:
        swing = SWING * math.sin(2 * math.pi * (phase + step / 28))  # a week to and fro
        yield Change(at=step * STEP_SECONDS, price=round(base * (1 + swing), 4))
        step += 1
