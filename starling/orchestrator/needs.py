"""Runs that need other runs: what is known of those, whether they are waited for, and what they make impossible. Pure.

A run whose spec names `needs` begins when all of them are done. Until then its controller buys nothing; one that
failed, was stopped or is gone is the end of the run that needs it, too, until both are resumed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starling.infra.records import RunState

WAIT_SECONDS = 10.0
"""The longest pause between two looks at runs that are waited for."""
WAIT_LOOKS = 2.0
"""How many of the provider's usual pauses it is otherwise: nothing that costs money depends on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedFacts:
    """What is known of one needed run."""

    name: str
    """What `needs` calls it."""
    run: str
    state: RunState | None
    """PENDING, RUNNING or STOPPING while it is not over; None: the store holds no such run."""
    reason: str | None = None
    """Of its verdict."""
    step: int | None = None
    """Steps completed; None: it has not begun, or only its script knows."""
    total_steps: int | None = None
    over_at: float | None = None
    """When it was over, if it is."""

    @property
    def done(self) -> bool:
        return self.state is RunState.DONE


def waits_for(needs: Iterable[NeedFacts], *, steps: bool = False) -> str | None:
    """What a run waits for, in words; None: for nothing. With `steps`, also how far that is."""
    waiting = [
        f"run {need.run} (needs.{need.name}{_how_far(need) if steps else ''})" for need in needs if not need.done
    ]
    return f"waits for {' and '.join(waiting)}" if waiting else None


def broken_need(run: str, needs: Iterable[NeedFacts]) -> str | None:
    """Why `run` can not begin, and how to go on; None: it can, now or later."""
    for need in needs:
        if why := why_broken(need):
            resumes = f"; to go on: `starling resume {need.run}`, then `starling resume {run}`"
            return why + (resumes if need.state is not None else "")
    return None


def why_broken(need: NeedFacts) -> str | None:
    """Why a needed run will never be done by itself; None: it is, or may be."""
    if need.state is None:
        return f"there is no run {need.run} (needs.{need.name}) in the store any more, which this run needs"
    if need.state in (RunState.FAILED, RunState.STOPPED):
        return f"run {need.run} (needs.{need.name}), which this run needs, is {need.state.value}: {need.reason}"
    return None


def begins_at(created_at: float, needs: Iterable[NeedFacts]) -> float:
    """From when on a run may train: its creation, or the end of the last run that it needs."""
    return max([created_at, *(need.over_at or 0.0 for need in needs)])


def _how_far(need: NeedFacts) -> str:
    if need.step is None or not need.total_steps:
        return f", {need.state.value if need.state else 'gone'}"
    return f", step {need.step} of {need.total_steps}"
