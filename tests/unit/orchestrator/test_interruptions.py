"""What counts as an interruption, and how long recovery took: from synthetic events."""

from __future__ import annotations

import pytest

from starling.infra.records import Event, EventKind
from starling.orchestrator.interruptions import interruptions, recoveries, steps_redone


def event(at: float, kind: EventKind, /, subject: str = "r", **data: object) -> Event:
    return Event(at=at, kind=kind, subject=subject, reason="because", data=dict(data))


def began(at: float, number: int, redone: int = 0) -> Event:
    return event(at, EventKind.ROUND, round=number, redone=redone)


def stepped(at: float, number: int) -> Event:
    return event(at, EventKind.FIRST_STEP, round=number, step=1)


def ended(at: float, number: int, cause: str) -> Event:
    return event(at, EventKind.ROUND_ENDED, round=number, cause=cause)


def rehearsed(at: float, node: str, seconds: float | None) -> Event:
    kind = "hard" if seconds is None else "notice"
    return event(at, EventKind.INTERRUPT, node, kind=kind, seconds=seconds or 0.0)


def noticed(at: float, node: str, effect: float, kind: str = "interruption") -> Event:
    return event(at, EventKind.NODE_NOTICE, node, kind=kind, takes_effect_at=effect)


CALM = [began(0, 0), stepped(1, 0)]

STORIES = {
    "nothing": ([*CALM], []),
    "nodes join": ([*CALM, ended(5, 0, "join"), began(6, 1), stepped(7, 1)], []),
    "a rehearsed notice is one cause, though the agent reports it too": (
        [*CALM, rehearsed(10, "n0", 5), noticed(11, "n0", 15), ended(12, 0, "leave"), began(13, 1), stepped(14, 1)],
        [("notice", "n0", 4.0)],
    ),
    "a provider's own notice": (
        [*CALM, noticed(11, "n0", 131), ended(12, 0, "leave"), began(13, 1), stepped(14, 1)],
        [("notice", "n0", 3.0)],
    ),
    "nobody is left to say that the only node went, with time to spare": (
        [*CALM, noticed(11, "n0", 131), event(12, EventKind.NODE_ENDED, "n0"), began(15, 1), stepped(16, 1)],
        [("notice", "n0", 5.0)],
    ),
    "another one is lost before the announced one, which left in time, is taken": (
        [
            *(*CALM, noticed(11, "n0", 131), ended(12, 0, "leave"), began(13, 1), stepped(14, 1)),
            *(event(90, EventKind.ROUND_ENDED, round=1, cause="peer-lost", node="n3"), began(91, 2), stepped(93, 2)),
        ],
        [("notice", "n0", 3.0), ("lost", "n3", 3.0)],
    ),
    "a rebalance recommendation is none": (
        [*CALM, noticed(11, "n0", 131, "rebalance"), ended(12, 0, "leave"), began(13, 1), stepped(14, 1)],
        [],
    ),
    "a hard kill explains the lost peers": (
        [*CALM, rehearsed(10, "n0", None), ended(11, 0, "peer-lost"), began(15, 1, 3), stepped(16, 1)],
        [("hard", "n0", 6.0)],
    ),
    "and the broken round after it": (
        [*CALM, rehearsed(10, "n0", None), ended(11, 0, "peer-lost"), began(12, 1), ended(13, 1, "peer-lost"),
         began(15, 2), stepped(16, 2)],
        [("hard", "n0", 6.0)],
    ),
    "a notice too short to drain, then the loss": (
        [*CALM, rehearsed(10, "n0", 1), noticed(10.5, "n0", 11), ended(12, 0, "peer-lost"), began(14, 1),
         stepped(15, 1)],
        [("notice", "n0", 5.0)],
    ),
    "two nodes killed at once are two interruptions": (
        [*CALM, rehearsed(10, "n0", None), rehearsed(10.2, "n1", None), ended(11, 0, "peer-lost"), began(15, 1),
         stepped(16, 1)],
        [("hard", "n0", 6.0), ("hard", "n1", 5.8)],
    ),
    "a power cut nobody announced": (
        [*CALM, ended(20, 0, "peer-lost"), ended(20.1, 0, "peer-lost"), began(24, 1), stepped(25, 1)],
        [("lost", None, 5.0)],
    ),
    "the task raises: the run's own fault": (
        [*CALM, event(20, EventKind.WORKER_FAILED, "n0", own=True), ended(20, 0, "failure"), began(21, 1)],
        [],
    ),
    "the task raises, and its peers only know that it is gone": (
        [*CALM, event(19.9, EventKind.WORKER_FAILED, "n0", own=True), ended(20, 0, "peer-lost"), began(21, 1)],
        [],
    ),
    "a training process is killed": (
        [*CALM, event(20, EventKind.WORKER_FAILED, "n0", own=False), ended(20, 0, "failure"), began(21, 1),
         stepped(22, 1)],
        [("failure", None, 2.0)],
    ),
    "all nodes lost: nobody could say so": (
        [*CALM, event(30, EventKind.NODE_ENDED, "n0"), event(31, EventKind.NODE_ENDED, "n1"), began(40, 1),
         stepped(41, 1)],
        [("lost", "n0", 11.0)],
    ),
    "a round whose beginning was lost with its rank 0": (
        [*CALM, ended(5, 0, "join"), ended(6, 1, "peer-lost"), began(9, 2), stepped(10, 2)],
        [("lost", None, 4.0)],
    ),
    "a resumed run was not interrupted": (
        [*CALM, event(20, EventKind.VERDICT), event(30, EventKind.RUN_RESUMED), began(40, 0), stepped(41, 0)],
        [],
    ),
    "no step since": ([*CALM, rehearsed(10, "n0", None), ended(11, 0, "peer-lost")], [("hard", "n0", None)]),
    "old causes do not explain new losses": (
        [*CALM, rehearsed(10, "n0", None), ended(11, 0, "peer-lost"), began(15, 1), stepped(16, 1),
         ended(100, 1, "peer-lost"), began(103, 2), stepped(104, 2)],
        [("hard", "n0", 6.0), ("lost", None, 4.0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_causes_and_recoveries(story: str) -> None:
    events, expected = STORIES[story]
    found = recoveries(events)
    assert [(r.cause.kind, r.cause.node, r.seconds and round(r.seconds, 3)) for r in found] == expected
    assert len(interruptions(events)) == len(expected)


def test_steps_redone_are_summed_over_rounds() -> None:
    assert steps_redone([began(0, 0), began(1, 1, 3), began(2, 2, 4), stepped(3, 2)]) == 7
