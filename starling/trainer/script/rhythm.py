"""How long a folder must have been at rest to count as whole: learned from how its script saves. Pure.

Saving several files takes breaks: a tensor is fetched, a disk hiccups. No fixed time tells such a break from the end
of saving. But scripts save regularly, and the breaks between two savings are much longer than those within one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

REMEMBERED = 5
"""Breaks between savings that are kept in mind."""
FIRST = 3.0
"""Times `settle`: how long a rest must be while no break between two savings has been seen."""
SHARE = 0.5
"""Of a usual break between two savings: how long a rest must be afterwards."""
LONGEST = 60.0
"""Seconds; no rest need be longer."""


class Rhythm:
    """Watches the times of changes in one folder."""

    def __init__(self, settle: float, since: float) -> None:
        """Only changes later than `since` (epoch seconds) are the script's."""
        self._settle = settle
        self._since = since
        self._newest: float | None = None
        self._breaks: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, changes: Iterable[float]) -> None:
        """Take in when each file of the folder was changed last."""
        later = [at for at in changes if at > (self._newest if self._newest is not None else self._since)]
        if not later:
            return
        if self._newest is not None and min(later) - self._newest >= self._settle:
            self._breaks.append(min(later) - self._newest)
        self._newest = max(later)

    def rest(self) -> float:
        """Seconds without a change after which the folder counts as whole."""
        if not self._breaks:
            return FIRST * self._settle
        return max(self._settle, min(SHARE * median(self._breaks), LONGEST))
