"""How many steps each fault may cost: the promise, in numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.evidence import Evidence, Played
from chaos.schedule import Kind
from starling.infra.records import Event, EventKind
from starling.orchestrator.interruptions import steps_redone

HARD = (Kind.KILL_NODE, Kind.KILL_AGENT, Kind.KILL_SUPERVISOR, Kind.KILL_WORKER)
AT_NOBODY = (Kind.STORE, Kind.STOP, Kind.KILL_CONTROLLER)
"""Those that are aimed at no node; of the others, one that found nobody did nothing."""
HEARD_SECONDS = 3.0
"""From the start of a notice to the drain: it is polled once a second, then all nodes finish a step and vote."""
LAPSE_SECONDS = 12.0
"""A node that is not heard for 15 s by default may be taken for dead, and the clock may have run before."""
AFTERMATH_SECONDS = 45.0
"""A round that begins so long after a fault may owe its redone steps to it."""
NEARBY_SECONDS = 60.0
"""Checkpoints committed within this time of a fault say how long an upload took then."""


def bound(played: Played, evidence: Evidence, every_steps: int) -> int:
    """The most steps that may be redone because of one fault.

    Nothing, for whatever leaves time to save. Else the steps between two checkpoints, and those that were made during
    one upload: the newest checkpoint may have been on its way.
    """
    return every_steps + steps_during_upload(played, evidence, every_steps) if is_hard(played, evidence) else 0


def is_hard(played: Played, evidence: Evidence) -> bool:
    """Whether a fault leaves no time to save."""
    fault = played.fault
    if not (played.hit or fault.kind in AT_NOBODY):
        return False
    troubled = any(start < played.until and played.at < end for _, start, end in evidence.windows())
    match fault.kind:
        case Kind.NOTICE:
            enough = HEARD_SECONDS + upload_seconds(played, evidence)
            return fault.seconds < enough or (played.everybody and troubled)
        case Kind.FREEZE_NODE:
            return fault.seconds > LAPSE_SECONDS
        case Kind.STOP:
            return troubled
        case Kind.STORE:
            return fault.seconds > LAPSE_SECONDS
    return fault.kind in HARD


def upload_seconds(played: Played, evidence: Evidence) -> float:
    """How long a checkpoint took at that time, from when it was handed over until it was committed."""
    near = [
        float(event.data["seconds"])
        for event in evidence.events
        if event.kind is EventKind.CHECKPOINT and abs(event.at - played.at) < NEARBY_SECONDS
    ]
    return max(near, default=1.0)


def steps_during_upload(played: Played, evidence: Evidence, every_steps: int) -> int:
    """Steps made during an upload before the fault took effect; one that met trouble lasted as long as that did."""
    effect = played.until if played.fault.kind in (Kind.NOTICE, Kind.STORE) else played.at
    start = effect - upload_seconds(played, evidence)
    for _, opened, closed in sorted(evidence.windows(), key=lambda window: -window[1]):
        if closed >= evidence.trace.steps_before(start, every_steps) and opened <= effect:
            start = min(start, opened - upload_seconds(played, evidence))
    return evidence.trace.between(start, effect) + 1


def excesses(evidence: Evidence, every_steps: int) -> list[str]:
    """Rounds that redid more than the faults since the round before them explain, and a sum that is over the bound."""
    found = []
    before = 0.0
    for event in evidence.events:
        if event.kind is not EventKind.ROUND:
            continue
        redone = _redone(event, before, evidence)
        causes = [p for p in evidence.played if p.at <= event.at and p.until + AFTERMATH_SECONDS >= before]
        allowed = sum(bound(p, evidence, every_steps) for p in causes)
        if redone > allowed:
            why = ", ".join(f"{p.number}. {p.fault.what}" for p in causes) or "nothing"
            found.append(f"round {event.data.get('round')} redid {redone} steps; {why} explains {allowed}")
        before = event.at
    redone, allowed = steps_redone(evidence.events), sum(_bounds(evidence.played, evidence, every_steps))
    if redone > allowed:
        found.append(f"{redone} steps were redone in all, {allowed} are allowed")
    return found


def _redone(event: Event, before: float, evidence: Evidence) -> int:
    """As the round says, or as was seen from outside if that is more: what all nodes knew may be lost with them."""
    seen = evidence.trace.highest(before, event.at) - int(event.data.get("resume_step") or 0)
    return max(int(event.data.get("redone") or 0), seen)


def _bounds(played: Iterable[Played], evidence: Evidence, every_steps: int) -> Iterable[int]:
    return (bound(p, evidence, every_steps) for p in played)
