"""Status, result and ledger: from synthetic records."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.providers.base import Machine
from starling.infra.records import (
    Event,
    EventKind,
    Market,
    NodeIntent,
    NodeState,
    NodeStatus,
    Offer,
    Progress,
    RunRecord,
    RunState,
    StopRequest,
    Verdict,
)
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.ledger import ledger
from starling.orchestrator.report import View, result, run_state, status
from tests.support.specs import spec

NOW = 1000.0
OFFER = Offer(provider="local", instance_type="local", zone="here", market=Market.SPOT, price_per_hour=3.6)
MANIFEST = {
    "step": 40,
    "epoch": 1,
    "created_at": 900.0,
    "weights_sha256": "w40",
    "state_sha256": "s40",
    "exact": True,
    "meta": {"history": [{"epoch": 1, "step": 40, "val": {"accuracy": 0.5}}]},
}


def node(
    slot: int = 0, *, heartbeat: float = NOW - 1, step: int = 50, round_number: int = 2, **intent: Any
) -> NodeFacts:
    name = f"r.{slot}.0"
    progress = Progress(
        at=heartbeat, step=step, total_steps=100, epoch=1, round=round_number, world_size=2, rank=slot, loss=0.25
    )
    return NodeFacts(
        intent=NodeIntent(
            **{
                "node": name,
                "run": "r",
                "incarnation": 0,
                "slot": slot,
                "generation": 0,
                "offer": OFFER,
                "wanted_at": 100.0,
                "authorised_until": None,
                "launched_at": 500.0,
                **intent,
            }
        ),
        status=NodeStatus(
            node=name,
            run="r",
            state=NodeState.TRAINING,
            at=heartbeat,
            booted_at=501.0,
            address="10.0.0.1",
            instance_id="i-1",
            progress=progress,
        ),
        machine=Machine(node=name, instance_id="i-1", alive=True, launched_at=500.0, pids=(11, 12)),
    )


def view(*nodes: NodeFacts, **changes: Any) -> View:
    more = {name: changes.pop(name, None) for name in ("stop", "resumed_at")}
    record = RunRecord(run="r", created_at=100.0, **more)
    facts = Facts(run=record, spec=spec(), verdict=changes.pop("verdict", None), nodes=nodes)
    return View(
        **{"facts": facts, "events": (), "manifest": MANIFEST, "checkpoint_uri": "/s/c/40", "now": NOW, **changes}
    )


def verdict(state: RunState, **more: Any) -> Verdict:
    return Verdict(state=state, at=990.0, by="t", reason="why", **more)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (view(), RunState.PENDING),
        (view(node()), RunState.RUNNING),
        (view(node(heartbeat=NOW - 30)), RunState.PENDING),
        (view(node(incarnation=-1)), RunState.PENDING),
        (view(node(), stop=StopRequest(at=1, reason="x")), RunState.STOPPING),
        (view(node(), stop=StopRequest(at=1, reason="x"), verdict=verdict(RunState.DONE)), RunState.DONE),
    ],
)
def test_the_state_follows_from_facts(seen: View, state: RunState) -> None:
    assert run_state(seen.facts, NOW) is state


def test_status_has_what_is_promised() -> None:
    told = status(view(node(0), node(1, step=49)))
    promised = "run state step total_steps epoch round world_size nodes checkpoint interruptions steps_redone cost"
    assert set(promised.split()) <= set(told)
    assert (told["step"], told["total_steps"], told["epoch"], told["round"], told["world_size"]) == (50, 100, 1, 2, 2)
    assert told["checkpoint"] == {"uri": "/s/c/40", "step": 40, "committed_at": 900.0}
    first = told["nodes"][0]
    expected = {"id": "r.0.0", "state": "training", "pids": [11, 12], "address": "10.0.0.1", "instance_type": "local"}
    assert expected | {"zone": "here", "market": "spot", "launched_at": 500.0} == {
        key: first[key] for key in [*expected, "zone", "market", "launched_at"]
    }


def test_the_newest_round_tells_the_progress() -> None:
    assert status(view(node(0, step=90, round_number=1), node(1, step=60, round_number=2)))["step"] == 60


def test_nobody_trains_so_the_world_is_empty_but_the_step_is_known() -> None:
    told = status(view(node(heartbeat=NOW - 100)))
    assert (told["state"], told["world_size"], told["step"]) == ("pending", 0, 50)
    assert told["nodes"][0]["state"] == "silent"


def test_without_any_node_the_checkpoint_tells_the_step() -> None:
    assert status(view())["step"] == 40


def test_gone_nodes_are_in_the_ledger_only() -> None:
    told = status(view(node(0, gone_at=700.0, gone_reason="taken"), node(1)))
    assert [entry["id"] for entry in told["nodes"]] == ["r.1.0"]
    assert [entry["id"] for entry in told["ledger"]] == ["r.0.0", "r.1.0"]


def test_the_ledger_counts_from_launch_to_end() -> None:
    gone = node(0, gone_at=700.0)
    gone = NodeFacts(intent=gone.intent, status=gone.status)
    never = NodeFacts(intent=node(2, launched_at=None).intent)
    bills = {bill.node: bill for bill in ledger([gone, node(1), never], NOW)}
    assert (bills["r.0.0"].seconds, bills["r.0.0"].cost) == (200.0, pytest.approx(0.2))
    assert (bills["r.1.0"].seconds, bills["r.1.0"].end) == (500.0, None)
    assert (bills["r.2.0"].seconds, bills["r.2.0"].start) == (0.0, None)


def test_the_ledger_says_what_it_would_have_cost_on_demand() -> None:
    spot = OFFER.but(on_demand_price=7.2)
    full = OFFER.but(market=Market.ON_DEMAND, price_per_hour=7.2, on_demand_price=None)
    told = status(view(node(0, offer=spot), node(1, offer=full), node(2)))
    assert [(bill["cost"], bill["on_demand_cost"], bill["saving"]) for bill in told["ledger"]] == [
        (0.5, 1.0, 0.5),
        (1.0, 1.0, 0.0),
        (0.5, None, None),
    ]
    assert (told["cost"], told["on_demand_cost"], told["saving"]) == (2.0, 2.5, 0.5)
    told = result(view(node(0, offer=spot), verdict=verdict(RunState.DONE)))
    assert (told["on_demand_cost"], told["saving"], len(told["ledger"])) == (1.0, 0.5, 1)


def test_where_no_full_price_is_known_nothing_is_claimed() -> None:
    told = status(view(node(0)))
    assert (told["on_demand_cost"], told["saving"]) == (None, None)


def test_what_a_machine_is_counts_before_the_intent_knows_it() -> None:
    dear = OFFER.but(zone="there", price_per_hour=36.0)
    before = node(0, candidates=(OFFER, dear))
    machine = Machine(node="r.0.0", instance_id="i-1", alive=True, launched_at=500.0, zone="there")
    told = status(view(NodeFacts(intent=before.intent, machine=machine)))
    assert told["nodes"][0]["zone"] == "there"
    assert told["cost"] == 5.0


def test_result_of_a_done_run_is_the_verdicts() -> None:
    given = {
        "weights_sha256": "w",
        "state_sha256": "s",
        "checkpoint": {"uri": "u", "step": 100},
        "metrics": {"accuracy": 0.9},
        "exact": True,
        "loss_name": "cross_entropy",
    }
    told = result(view(verdict=verdict(RunState.DONE, step=100, result=given)))
    assert {key: told[key] for key in given} == given
    assert (told["run"], told["state"], told["step"]) == ("r", "done", 100)
    assert (told["interruptions"], told["steps_redone"], told["recoveries"]) == (0, 0, [])


def test_result_of_a_failed_run_has_the_error_and_where_it_got() -> None:
    told = result(view(verdict=verdict(RunState.FAILED, traceback="Traceback ...")))
    assert (told["error"], told["traceback"]) == ("why", "Traceback ...")
    assert (told["weights_sha256"], told["checkpoint"]) == ("w40", {"uri": "/s/c/40", "step": 40})
    assert told["metrics"] == {"accuracy": 0.5}


def test_result_of_a_stopped_run_has_the_reason() -> None:
    told = result(view(verdict=verdict(RunState.STOPPED)))
    assert told["reason"] == "why"
    assert "error" not in told


def test_a_run_that_never_began_has_no_checkpoint() -> None:
    told = result(view(manifest=None, checkpoint_uri=None))
    assert (told["checkpoint"], told["weights_sha256"], told["metrics"]) == (None, None, {})


def test_an_inexact_verdict_is_told() -> None:
    told = result(view(verdict=verdict(RunState.DONE, result={"exact": False})))
    assert told["exact"] is False


def decided(at: float, reason: str) -> Event:
    return Event(at=at, kind=EventKind.DECISION, subject="r", reason=reason)


def test_a_run_without_a_node_says_what_its_controller_waits_for() -> None:
    said = (decided(100.0, "r.0.0: the spec asks for it"), decided(101.0, "trying again every minute: ec2:CreateFleet"))
    nothing = node(launched_at=None)
    nothing = NodeFacts(intent=nothing.intent)
    for nodes in ((), (nothing,), (node(gone_at=990.0),)):
        assert status(view(*nodes, events=said))["reason"] == "trying again every minute: ec2:CreateFleet"
    assert status(view(node(), events=said))["reason"] is None, "one works"
    booting = NodeFacts(intent=node().intent)
    assert status(view(booting, events=said))["reason"] is None, "one is on its way"
    assert status(view(nothing, events=said, resumed_at=102.0))["reason"] is None, "that was said before the resume"
    assert status(view(nothing, events=said, stop=StopRequest(at=1, reason="x")))["reason"] == "x"
