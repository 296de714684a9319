"""The checks find what is planted, and nothing in a run that kept its promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chaos.check import violations
from chaos.evidence import Evidence, Hashes, Played, Trace
from chaos.schedule import Fault, Kind, Trouble
from starling.infra.records import Event, EventKind

EVERY = 10


def event(at: float, kind: EventKind, subject: str = "r", **data: Any) -> Event:
    return Event(at=at, kind=kind, subject=subject, reason="because", data=data)


def round_(at: float, number: int, resume: int, last: int) -> Event:
    redone = max(0, last - resume)
    return event(at, EventKind.ROUND, round=number, resume_step=resume, last_step=last, redone=redone)


def played(at: float, kind: Kind, **more: Any) -> Played:
    seconds = more.pop("seconds", 0.0)
    fault = Fault(kind=kind, seconds=seconds, trouble=Trouble.GONE if kind is Kind.STORE else None)
    return Played(number=1, fault=fault, at=at, until=at + seconds, step=0, hit=("n",), **more)


def steady() -> Trace:
    """Ten steps a second from time 100 on."""
    trace = Trace()
    for step in range(2000):
        trace.saw(100 + step / 10, step)
    return trace


CALM = Evidence(
    state="done",
    hashes=Hashes(weights="w", state="s"),
    undisturbed=Hashes(weights="w", state="s"),
    events=(
        round_(100, 0, 0, -1),
        event(101, EventKind.NODE_WANTED, "r.0.0"),
        event(110, EventKind.CHECKPOINT, "100", seconds=0.5, step=100),
    ),
    played=(),
    trace=steady(),
)


def test_a_fault_that_hit_nobody_explains_nothing() -> None:
    missed = dataclasses.replace(played(120, Kind.KILL_NODE), hit=())
    assert violations(with_loss(3, missed), EVERY)
    assert not violations(with_loss(3, played(120, Kind.KILL_NODE)), EVERY)


def with_loss(redone: int, *causes: Played) -> Evidence:
    """A round at 125 that begins again where 250 steps had been made."""
    again = round_(125, 1, 250 - redone, 250)
    return dataclasses.replace(CALM, events=(*CALM.events, again), played=causes)


def test_nothing_is_found_where_nothing_is() -> None:
    assert violations(CALM, EVERY) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "failed"}, "ended failed"),
        ({"hashes": Hashes(weights="w", state="other")}, "state_sha256"),
        ({"hashes": Hashes(weights="other", state="s")}, "weights_sha256"),
        ({"hashes": None}, "no hashes"),
        ({"leftovers": ("process 7 of r.0.0",)}, "left behind: process 7"),
        ({"complaints": ("a traceback",)}, "a traceback"),
        ({"events": (*CALM.events, event(105, EventKind.NODE_WANTED, "r.0.0"))}, "wanted more than once: r.0.0"),
    ],
)
def test_what_is_planted_is_found(changes: dict[str, Any], expected: str) -> None:
    (found,) = violations(dataclasses.replace(CALM, **changes), EVERY)
    assert expected in found


def test_a_hard_loss_may_cost_an_interval_and_an_upload() -> None:
    kill = played(124.9, Kind.KILL_NODE)
    assert violations(with_loss(10, kill), EVERY) == []
    assert violations(with_loss(16, kill), EVERY) == [], "10 steps, and 5 made during half a second of upload, and one"
    assert "round 1 redid 17 steps" in violations(with_loss(17, kill), EVERY)[0]


def test_a_long_notice_costs_nothing() -> None:
    assert violations(with_loss(0, played(120, Kind.NOTICE, seconds=20)), EVERY) == []
    found = violations(with_loss(1, played(120, Kind.NOTICE, seconds=20)), EVERY)
    assert "round 1 redid 1 steps" in found[0]


def test_a_short_notice_is_a_hard_loss() -> None:
    assert violations(with_loss(10, played(123, Kind.NOTICE, seconds=1)), EVERY) == []


@pytest.mark.parametrize("kind", [Kind.KILL_CONTROLLER, Kind.FREEZE_WORKER, Kind.STOP, Kind.STORE])
def test_what_kills_no_node_costs_nothing(kind: Kind) -> None:
    assert "round 1 redid 3 steps" in violations(with_loss(3, played(120, kind, seconds=2)), EVERY)[0]


def test_an_old_loss_does_not_excuse_a_new_one() -> None:
    settled = round_(112, 1, 115, 120)
    evidence = with_loss(5, played(50, Kind.KILL_NODE))
    evidence = dataclasses.replace(evidence, events=(*CALM.events, settled, evidence.events[-1]))
    assert any("round 1 redid 5" in found for found in violations(evidence, EVERY))


def test_steps_that_no_round_admits_to_are_seen_from_outside() -> None:
    """All nodes were lost, and with them what they knew: the round says it redid nothing."""
    silent = event(125, EventKind.ROUND, round=1, resume_step=200, last_step=-1, redone=0)
    evidence = dataclasses.replace(CALM, events=(*CALM.events, silent), played=(played(124.9, Kind.KILL_NODE),))
    assert "round 1 redid 50 steps" in violations(evidence, EVERY)[0]


def test_an_upload_that_meets_trouble_lasts_as_long_as_the_trouble() -> None:
    trouble = played(120, Kind.STORE, seconds=4)
    kill = played(124.9, Kind.KILL_NODE, everybody=True)
    assert violations(with_loss(55, trouble, kill), EVERY) == []
    assert violations(with_loss(55, kill), EVERY)
