"""What hit a run, and how long each time until it went on: pure over its events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from starling.infra.records import Event, EventKind, NoticeKind

SAME_CAUSE_SECONDS = 60.0
"""A node's notice seen so soon after its interruption was rehearsed is that interruption."""
AFTERMATH_SECONDS = 10.0
"""A round that breaks so soon after a cause took effect broke because of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interruption:
    """One cause: however many rounds it broke, it counts once; two causes that broke one round count twice."""

    at: float
    kind: str
    """notice, hard (both: rehearsed, or announced by the provider), lost (unannounced), failure (a training process
    was killed). An error that the task raised is no interruption."""
    node: str | None
    effect_at: float
    """When the machine goes, or went."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    cause: Interruption
    seconds: float | None
    """From the cause to the end of the next step, or a script's next sign of life; None if there has been none."""


def interruptions(events: Iterable[Event]) -> list[Interruption]:
    """Every interruption, oldest first. `events` are in order of time."""
    events = list(events)
    found = list(_announced(events))
    for loss in _broken_rounds(events):
        if not any(_explains(cause, loss) for cause in found):
            found.append(loss.cause)
    return sorted(found, key=lambda cause: cause.at)


def recoveries(events: Iterable[Event]) -> list[Recovery]:
    """Every interruption with the time until training went on in a round that began after it."""
    events = list(events)
    return [Recovery(cause=cause, seconds=_seconds_until_next_step(cause, events)) for cause in interruptions(events)]


def steps_redone(events: Iterable[Event]) -> int:
    """Steps that were computed again, over all rounds."""
    return sum(int(event.data.get("redone") or 0) for event in events if event.kind is EventKind.ROUND)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loss:
    began_at: float
    cause: Interruption


def _announced(events: list[Event]) -> Iterator[Interruption]:
    rehearsed: list[Interruption] = []
    for event in events:
        if event.kind is EventKind.INTERRUPT:
            cause = _rehearsal(event)
            rehearsed.append(cause)
            yield cause
        elif event.kind is EventKind.NODE_NOTICE and event.data.get("kind") == NoticeKind.INTERRUPTION:
            same = (c for c in rehearsed if c.node == event.subject and 0 <= event.at - c.at <= SAME_CAUSE_SECONDS)
            if next(same, None) is None:
                effect = event.data.get("takes_effect_at") or event.at
                yield Interruption(at=event.at, kind="notice", node=event.subject, effect_at=float(effect))


def _rehearsal(event: Event) -> Interruption:
    kind = str(event.data.get("kind") or "hard")
    seconds = float(event.data.get("seconds") or 0.0)
    return Interruption(at=event.at, kind=kind, node=event.subject, effect_at=event.at + seconds)


def _broken_rounds(events: list[Event]) -> Iterator[_Loss]:
    """Rounds that ended because somebody was lost, one each, whoever reported it and how often."""
    open_round: _Round | None = None
    for event in events:
        if event.kind is EventKind.ROUND:
            if open_round is not None and not open_round.settled:
                yield _unreported(open_round, event)
            open_round = _Round(number=event.data.get("round"), began_at=event.at)
        elif event.kind is EventKind.ROUND_ENDED:
            number = event.data.get("round")
            if open_round is None or open_round.number != number:
                # Its beginning was never written: whoever was to write it was lost first.
                open_round = _Round(number=number, began_at=open_round.ended_at if open_round else event.at)
            lost = event.data.get("cause") in ("peer-lost", "failure") and not open_round.own_error
            if lost and not open_round.settled:
                yield _reported(open_round.began_at, event)
            open_round.settled, open_round.ended_at = True, event.at
        elif open_round is not None and event.kind is EventKind.WORKER_FAILED and event.data.get("own"):
            open_round.own_error = True
        elif open_round is not None and event.kind is EventKind.NODE_ENDED:
            open_round.trace = open_round.trace or event
        elif open_round is not None and event.kind in (EventKind.RUN_RESUMED, EventKind.VERDICT):
            open_round.settled = True


@dataclass(kw_only=True, slots=True)
class _Round:
    number: Any
    began_at: float
    settled: bool = False
    """Somebody said how it ended, or the run was over."""
    ended_at: float = 0.0
    trace: Event | None = None
    """The first node that ended in it."""
    own_error: bool = False
    """The task raised in it: a fault of the run's own, and no interruption."""


def _reported(began_at: float, ended: Event) -> _Loss:
    kind = "lost" if ended.data["cause"] == "peer-lost" else "failure"
    cause = Interruption(at=ended.at, kind=kind, node=_text(ended.data.get("node")), effect_at=ended.at)
    return _Loss(began_at=began_at, cause=cause)


def _unreported(lost: _Round, following: Event) -> _Loss:
    """Nobody was left to say how the round ended; the first trace after it is a node's end, or the next round."""
    at = lost.trace.at if lost.trace else following.at
    node = lost.trace.subject if lost.trace else None
    return _Loss(began_at=lost.began_at, cause=Interruption(at=at, kind="lost", node=node, effect_at=at))


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


def _explains(cause: Interruption, loss: _Loss) -> bool:
    if cause.kind in ("lost", "failure"):
        return False
    ended = loss.cause.at
    if cause.node is not None and cause.node == loss.cause.node and cause.at <= ended <= cause.effect_at:
        return True  # it left on the notice, with time to spare
    if cause.kind == "notice" and None not in (cause.node, loss.cause.node) and cause.node != loss.cause.node:
        return False  # the announced one goes while another one is lost
    in_round = loss.began_at <= cause.effect_at <= ended + AFTERMATH_SECONDS
    just_before = 0 <= ended - cause.effect_at <= AFTERMATH_SECONDS
    return in_round or just_before


def _seconds_until_next_step(cause: Interruption, events: list[Event]) -> float | None:
    rounds = (event.at for event in events if event.kind is EventKind.ROUND and event.at > cause.at)
    next_round = next(rounds, None)
    if next_round is None:
        return None
    signs = (EventKind.FIRST_STEP, EventKind.SCRIPT_ACTIVE)
    steps = (event.at for event in events if event.kind in signs and event.at >= next_round)
    first = next(steps, None)
    return first - cause.at if first is not None else None
