"""How long a folder must have been at rest to count as whole: learned from how its script saves. Pure.

Saving several files takes breaks: a tensor is fetched, a disk hiccups. No fixed time tells such a break from the end
of saving. But scripts save regularly, and the breaks between two savings are much longer than those within one.
"""

from __future__ import annotations

from collections.abc import Iterable

ENOUGH = 6
"""Breaks that must have been seen before a rest may be shorter than `FIRST` times `settle`."""
FIRST = 3.0
"""Times `settle`: how long a rest must be, at least, while little is known of the script."""
SHARE = 0.5
"""Of the longest break that is kept in mind: how long a rest must be."""
LONGEST = 60.0
"""Seconds; no rest need be longer."""
MEMORY = 4.0
"""Times its own length (that counts up to `LONGEST / SHARE` seconds): how long a break is kept in mind. So the break
before a saving is, through the whole of it, however many pauses that has; a break longer than usual is not for ever."""


class Rhythm:
    """Watches the times of changes in one folder."""

    def __init__(self, settle: float, since: float) -> None:
        """Only changes later than `since` (epoch seconds) are the script's."""
        self._settle = settle
        self._since = since
        self._newest: float | None = None
        self._breaks: list[tuple[float, float]] = []
        """(when it ended, its length) of those that are kept in mind, oldest first."""
        self._seen = 0

    def observe(self, changes: Iterable[float]) -> None:
        """Take in when each file of the folder was changed last."""
        later = [at for at in changes if at > (self._newest if self._newest is not None else self._since)]
        if not later:
            return
        if self._newest is not None and min(later) - self._newest >= self._settle:
            self._breaks.append((min(later), min(later) - self._newest))
            self._seen += 1
        self._newest = max(later)
        self._breaks = [(end, length) for end, length in self._breaks if self._newest - end <= _kept_for(length)]

    def rest(self) -> float:
        """Seconds without a change after which the folder counts as whole."""
        least = self._settle if self._seen >= ENOUGH else FIRST * self._settle
        longest = max((length for _, length in self._breaks), default=0.0)
        return max(least, min(SHARE * longest, LONGEST))


def _kept_for(length: float) -> float:
    return MEMORY * min(length, LONGEST / SHARE)
