"""Which checkpoints stay, and how often to make one: pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable


def expendable(steps: Iterable[int], *, steps_per_epoch: int, keep: int) -> list[int]:
    """Committed checkpoints that may go: every epoch's stays, and so do the newest `keep` of the others.
    With `steps_per_epoch` 0 there are no epochs.

    The newest checkpoint of all always stays.
    """
    ordered = sorted(steps)
    between = [step for step in ordered if not steps_per_epoch or step % steps_per_epoch]
    stale = between[: max(0, len(between) - keep)]
    return [step for step in stale if step != ordered[-1]]


def best_interval(cost: float, mean_time_between_failures: float) -> float:
    """Seconds between checkpoints that lose least, for a checkpoint that holds training up for `cost` seconds.

    First-order optimum of Young (1974), as refined by Daly (2006): sqrt(2 * cost * MTBF).
    """
    return math.sqrt(2 * cost * mean_time_between_failures)
