"""Says every few seconds how far a long job has come, how fast it is and how long it will take."""

from __future__ import annotations

from collections.abc import Callable

from starling.infra.clock import Clock, SystemClock

EVERY = 3.0
"""Seconds between two lines."""

Progress = Callable[[str], None]


class Pace:
    """Counts what is done of `total`."""

    def __init__(self, total: int, unit: str, tell: Progress, clock: Clock | None = None) -> None:
        self.tell = tell
        self._total = total
        self._unit = unit
        self._clock = clock or SystemClock()
        self._begun: float | None = None
        """When the first one was done: what comes before it, like starting workers, says nothing about the rate."""
        self._told = 0.0
        self._done = 0
        self._skipped = 0

    def skip(self, count: int, why: str) -> None:
        """So many were done before."""
        self._skipped = count
        self.tell(why)

    def count(self, more: int = 1) -> None:
        self._done += more
        now = self._clock.now()
        if self._begun is None:
            self._begun = self._told = now
        elif now - self._told >= EVERY:
            self._told = now
            self.tell(self._line(now - self._begun))

    def _line(self, seconds: float) -> str:
        done = self._done + self._skipped
        rate = self._done / seconds
        left = (self._total - done) / rate
        return f"{done:,} of {self._total:,} {self._unit} ({rate:,.0f}/s, about {_span(left)} left)"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
