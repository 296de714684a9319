"""Which of a run's checkpoints is meant, and its state. Reads only: a run that goes on is not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound, StarlingError, UsageError
from starling.infra.store import Store
from starling.trainer.checkpoint.files import DamagedFile
from starling.trainer.checkpoint.load import load_checkpoint
from starling.trainer.checkpoint.manifest import Manifest, committed_steps, read_manifest
from starling.trainer.judging.evaluation import number
from starling.trainer.state import TrainingState

LOWER_IS_BETTER = ("loss", "entropy", "error", "brier")
"""In the name of a metric; of all others more is better."""
LISTED = 12
"""Steps that a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The checkpoint of a step, or of the epoch with the best value of a validation metric; else the newest."""

    step: int | None = None
    best: str | None = None


def choose_steps(store: Store, run: str, choice: Choice) -> list[int]:
    """Steps of committed checkpoints, the one to take first; another may only stand for it if none was asked for by
    name. Raises UsageError if there is no such checkpoint; the message names those there are."""
    prefix = layout.checkpoints(run)
    steps = committed_steps(store, prefix)
    if not steps:
        raise UsageError(f"run {run} has no checkpoint yet; see: starling status {run}")
    step = choice.step
    if choice.best is not None:
        step = int(best_epoch(read_manifest(store, prefix, steps[-1]).meta["history"], choice.best)["step"])
    if step is None:
        return steps[::-1]
    if step not in steps:
        asked = f"--best {choice.best} is step {step}, but" if choice.best is not None else f"--step {step}:"
        raise UsageError(f"{asked} run {run} has no checkpoint of that step; there are: {_listed(steps)}")
    return [step]


def load_first(store: Store, run: str, steps: list[int], note: Callable[[str], None]) -> tuple[TrainingState, Manifest]:
    """The state of the first of these steps that is whole, every byte verified; others are noted. Raises StarlingError
    if none is."""
    prefix = layout.checkpoints(run)
    reason = ""
    for step in steps:
        try:
            manifest = read_manifest(store, prefix, step)
            return load_checkpoint(store, manifest), manifest
        except (ObjectCorrupt, ObjectNotFound, DamagedFile, ValueError) as error:
            reason = reason or str(error)
            note(f"the checkpoint of step {step} is damaged or gone: {error}")
    raise StarlingError(f"no checkpoint of run {run} that could be used is whole: {reason}")


def best_epoch(history: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The record of the epoch with the best value (the earliest of equal ones; NaN and infinity are none). Raises
    UsageError: not measured."""
    measured = [record for record in history if number((record.get("val") or {}).get(metric)) is not None]
    if not measured:
        names = sorted({name for record in history for name in record.get("val") or {}})
        there = f"there are: {', '.join(names)}" if names else "no epoch has been evaluated"
        raise UsageError(f"--best {metric}: the run has measured no such metric; {there}")
    sign = -1 if lower_is_better(metric) else 1
    return max(measured, key=lambda record: sign * record["val"][metric])


def lower_is_better(metric: str) -> bool:
    return any(word in metric for word in LOWER_IS_BETTER)


def _listed(steps: list[int]) -> str:
    if len(steps) <= LISTED:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[: LISTED // 2]))}, ..., {', '.join(map(str, steps[-LISTED // 2 :]))}"
