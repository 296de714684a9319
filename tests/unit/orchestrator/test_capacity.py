"""Which offers a node may be bought as: market, zone, device, rests; what the deadline needs."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import NoCapacity, Refusal
from starling.infra.providers.base import Machine
from starling.infra.records import Market, NodeIntent, NodeState, NodeStatus, Offer, Progress, RunRecord
from starling.orchestrator.actions import TerminateStray
from starling.orchestrator.capacity import MOST_CANDIDATES, Choice, choose, markets_needed
from starling.orchestrator.deadline import SLACK, nodes_needed
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.rests import Rest
from starling.orchestrator.setbacks import SHUN_SECONDS
from starling.orchestrator.slots import slots_of
from starling.orchestrator.upkeep import upkeep
from tests.support.offers import on_demand, spot
from tests.support.specs import spec

CREATED = 1_000_000.0
DEADLINE = "1970-01-12T23:46:40+00:00"  # 36,000 s after CREATED
AWS = {"name": "aws", "same_zone": False}
CHEAP_T4 = spot("g4dn.xlarge", "a", 0.2, device="T4")
A10G_A, A10G_B = spot("g5.xlarge", "a", 0.4), spot("g5.xlarge", "b", 0.5)
FULL = on_demand("g5.xlarge", "a", 1.0)


def node(slot: int, offer: Offer = A10G_A, *, bought: bool = True, step: int | None = None, **intent: Any) -> NodeFacts:
    name = f"r.{slot}.0"
    word = NodeIntent(
        **{
            "node": name,
            "run": "r",
            "incarnation": 0,
            "slot": slot,
            "generation": 0,
            "offer": offer,
            "candidates": (offer,),
            "wanted_at": CREATED,
            "authorised_until": None,
            "launched_at": CREATED + slot if bought else None,
            "instance_id": f"i-{slot}" if bought else None,
            **intent,
        }
    )
    machine = Machine(node=name, instance_id=f"i-{slot}", alive=True, launched_at=CREATED) if bought else None
    return NodeFacts(intent=word, machine=machine, status=_status(name, step) if step is not None else None)


def _status(name: str, step: int) -> NodeStatus:
    progress = Progress(at=0, step=step, total_steps=1000, epoch=0, round=0, world_size=1, rank=0, step_seconds=40.0)
    return NodeStatus(
        node=name,
        run="r",
        state=NodeState.TRAINING,
        at=0,
        booted_at=0,
        address="h",
        instance_id="i",
        progress=progress,
    )


def facts(*nodes: NodeFacts, offers: tuple[Offer, ...] = (CHEAP_T4, A10G_A, A10G_B), **more: Any) -> Facts:
    sections = {"provider": AWS, **more.pop("sections", {})}
    record = RunRecord(run="r", created_at=CREATED)
    return Facts(run=record, spec=spec(**sections), verdict=None, nodes=nodes, offers=offers, **more)


def choices(seen: Facts, now: float = CREATED + 1) -> list[Choice]:
    return choose(seen, slots_of(seen, now), now)


def resting(*offers: Offer, until: float = CREATED + 60) -> dict[tuple[str, str, str], Rest]:
    return {
        offer.key: Rest(
            refusal=Refusal(
                instance_type=offer.instance_type,
                zone=offer.zone,
                market=offer.market.value,
                kind=NoCapacity,
                message="none left",
            ),
            times=1,
            until=until,
        )
        for offer in offers
    }


def refused(slot: int, **more: Any) -> tuple[NodeFacts, dict[str, int]]:
    wanted = node(slot, bought=False, **more)
    return wanted, {wanted.node: wanted.intent.attempt}


def test_an_exact_run_starts_with_the_kind_of_device_of_the_best_offer() -> None:
    assert [choice.candidates for choice in choices(facts())] == [(CHEAP_T4,)] * 3


def test_an_exact_run_keeps_to_the_device_of_the_first_node_that_trained() -> None:
    first = node(0, step=10, gone_at=CREATED + 100, gone_reason="taken")
    assert {choice.candidates for choice in choices(facts(first), CREATED + 200)} == {(A10G_A, A10G_B)}


def test_a_node_that_never_trained_binds_nobody_once_it_is_gone() -> None:
    lost = node(0, gone_at=CREATED + 100, gone_reason="taken")
    assert {choice.candidates for choice in choices(facts(lost), CREATED + 2000)} == {(CHEAP_T4,)}
    there = node(0)
    assert {choice.candidates for choice in choices(facts(there), CREATED + 2000)} == {(A10G_A, A10G_B)}


def test_what_ended_without_a_word_is_not_bought_again_at_once_if_there_is_another() -> None:
    unheard = node(0, gone_at=CREATED + 100, gone_reason="its machine ended")
    seen = facts(unheard, offers=(A10G_A, A10G_B))
    assert {choice.candidates for choice in choices(seen, CREATED + 101)} == {(A10G_B,)}
    assert choices(seen, CREATED + 100 + SHUN_SECONDS)[0].candidates == (A10G_A, A10G_B)
    only = facts(unheard, offers=(A10G_A,))
    assert choices(only, CREATED + 101)[0].candidates == (A10G_A,)
    heard = facts(node(0, step=1, gone_at=CREATED + 100, gone_reason="taken"), offers=(A10G_A, A10G_B))
    assert choices(heard, CREATED + 101)[0].candidates == (A10G_A, A10G_B)


def test_what_a_stray_computes_with_is_unknown() -> None:
    stray = Machine(node="r.7.0", instance_id="i-7", alive=True, launched_at=CREATED, instance_type="p5.48xlarge")
    (claim,) = [
        action
        for action in upkeep(facts(offers=(A10G_A,), strays=(stray,)), CREATED + 1)
        if isinstance(action, TerminateStray)
    ]
    assert (claim.intent.offer.instance_type, claim.intent.offer.device) == ("p5.48xlarge", None)


def test_where_nothing_was_bought_what_may_be_bought_at_any_moment_binds() -> None:
    pending = node(0, bought=False)
    assert {choice.candidates for choice in choices(facts(pending))} == {(A10G_A, A10G_B)}


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"epochs": 1, "global_batch": 64, "optimizer": {"name": "sgd", "lr": 0.1}, "exact": False}},
        {"command": {"run": "t.py", "folder": "out"}, "code": "."}
        | dict.fromkeys(("task", "model", "data", "training")),
    ],
    ids=["inexact", "script"],
)
def test_what_is_not_exact_may_mix_devices(sections: dict[str, Any]) -> None:
    seen = facts(node(0), sections=sections)
    assert choices(seen)[0].candidates == (CHEAP_T4, A10G_A, A10G_B)


def test_a_run_that_may_go_inexact_can_be_moved_to_other_devices() -> None:
    training = {"epochs": 1, "global_batch": 64, "optimizer": {"name": "sgd", "lr": 0.1}, "on_mismatch": "continue"}
    moved = facts(node(0), offers=(CHEAP_T4,), sections={"training": training})
    assert choices(moved)[0].candidates == (CHEAP_T4,)
    stays = facts(node(0), offers=(CHEAP_T4, A10G_A), sections={"training": training})
    assert choices(stays)[0].candidates == (A10G_A,)


def test_without_such_a_device_it_says_so() -> None:
    (choice, _) = choices(facts(node(0), offers=(CHEAP_T4,)))
    assert choice.candidates == ()
    assert choice.why == "aws has no offer that fits (only A10G, so that the run stays exact)"


def test_one_zone_is_the_one_of_the_living_nodes() -> None:
    sections = {"provider": AWS | {"same_zone": True}}
    assert {choice.candidates for choice in choices(facts(node(0, A10G_B), sections=sections))} == {(A10G_B,)}
    lost = node(0, A10G_B, step=1, gone_at=CREATED + 100, gone_reason="taken")
    assert choices(facts(lost, sections=sections), CREATED + 200)[0].candidates == (A10G_A,)


def test_a_node_alone_may_be_in_any_zone() -> None:
    sections = {"provider": AWS | {"same_zone": True}, "nodes": {"max": 1}}
    (choice,) = choices(facts(offers=(A10G_A, A10G_B), sections=sections))
    assert choice.candidates == (A10G_A, A10G_B)


def test_the_first_choice_of_a_zone_binds_all_nodes_wanted_at_the_same_moment() -> None:
    sections = {"provider": AWS | {"same_zone": True}}
    offers = (A10G_B, A10G_A, spot("g5.2xlarge", "b", 0.6))
    assert {choice.candidates for choice in choices(facts(offers=offers, sections=sections))} == {(A10G_B, offers[2])}


def test_resting_offers_are_left_out_and_named_when_none_is_left() -> None:
    seen = facts(node(0), resting=resting(A10G_A))
    assert choices(seen)[0].candidates == (A10G_B,)
    seen = facts(node(0), resting=resting(A10G_A) | resting(A10G_B, until=CREATED + 30))
    assert choices(seen)[0].why == (
        "all offers were refused (only A10G, so that the run stays exact), the next is asked again at 13:47:10 UTC "
        "(g5.xlarge in b, spot: none left; g5.xlarge in a, spot: none left)"
    )


def test_a_request_has_not_more_candidates_than_a_provider_takes() -> None:
    many = tuple(spot(f"g5.{size}xlarge") for size in range(100))
    assert choices(facts(offers=many))[0].candidates == many[:MOST_CANDIDATES]


PATIENCE = {"nodes": {"max": 1, "on_demand_after": 600}}


def test_on_demand_after_the_patience_counted_from_the_loss() -> None:
    wanted, memory = refused(1)
    lost = node(0, gone_at=CREATED + 1000, gone_reason="taken")
    holder = NodeFacts(intent=wanted.intent.but(node="r.0.1", slot=0, generation=1, wanted_at=CREATED + 1010))
    seen = facts(
        lost, holder, offers=(A10G_A, FULL), sections=PATIENCE, refused={"r.0.1": 0}, resting=resting(A10G_A, until=9e9)
    )
    assert memory == {"r.1.0": 0}
    assert choices(seen, CREATED + 1599)[0].candidates == ()
    assert markets_needed(seen, slots_of(seen, CREATED + 1599), CREATED + 1599) == {Market.SPOT}
    assert markets_needed(seen, slots_of(seen, CREATED + 1600), CREATED + 1600) == {Market.SPOT, Market.ON_DEMAND}
    (choice,) = choices(seen, CREATED + 1600)
    assert choice.candidates == (FULL,)
    assert choice.why == "on demand: it could not be had for 600 s (nodes.on_demand_after)"


@pytest.mark.parametrize("state", [NodeState.LEAVING, NodeState.ENDED])
def test_patience_counts_from_the_agents_word_that_it_goes(state: NodeState) -> None:
    leaving = node(0, gone_at=CREATED + 1000, gone_reason="taken")
    status = _status("r.0.0", 5).but(state=state, at=CREATED + 900)
    lost = NodeFacts(intent=leaving.intent, status=status)
    (need,) = slots_of(facts(lost, sections=PATIENCE), CREATED + 1001).needs
    assert need.since == CREATED + 900


def test_spot_gets_its_chance_even_if_nobody_looked_for_long() -> None:
    lost = node(0, gone_at=CREATED + 1000, gone_reason="taken")
    seen = facts(lost, offers=(A10G_A, FULL), sections=PATIENCE)
    assert choices(seen, CREATED + 90_000)[0].candidates == (A10G_A,)
    without = facts(lost, offers=(FULL,), sections=PATIENCE)
    assert choices(without, CREATED + 90_000)[0].candidates == (FULL,)


def test_where_the_full_price_buys_nothing_either_spot_is_tried_again() -> None:
    wanted, memory = refused(0)
    seen = facts(wanted, offers=(A10G_A, FULL), sections=PATIENCE, refused=memory, resting=resting(FULL))
    assert choices(seen, CREATED + 1000)[0].candidates == (A10G_A,)


def test_nothing_is_bought_on_demand_without_being_asked_for() -> None:
    wanted, memory = refused(0)
    seen = facts(wanted, offers=(FULL,), sections={"nodes": {"max": 1}}, refused=memory)
    assert choices(seen, CREATED + 1e6)[0].candidates == ()


DEADLINE_SECTIONS = {"nodes": {"max": 4, "on_demand_for_deadline": True}, "limits": {"deadline": DEADLINE}}


def test_the_deadline_needs_as_many_nodes_as_make_its_steps_short_enough() -> None:
    """1000 steps of 40 s with one rank, which is 8 passes; with 4 ranks it is 2."""
    end = CREATED + 36_000 - 90 - 2 * 40
    one, two = (SLACK * 1000 * 40 * passes / 8 for passes in (8, 4))
    seen = facts(node(0, step=0), sections=DEADLINE_SECTIONS)
    assert nodes_needed(seen, end - one - 1) == 1
    assert nodes_needed(seen, end - one + 1) == 2
    assert nodes_needed(seen, end - two + 1) == 3
    assert nodes_needed(seen, end - 10) == 4, "too late: as many as help"
    assert nodes_needed(facts(node(0, step=1000), sections=DEADLINE_SECTIONS), end - 10) == 1


def test_parts_of_a_model_make_as_many_passes_on_all_ranks() -> None:
    """With fsdp, exact or not, who has fewer shards repeats one: of four, three ranks take two passes, as two do."""
    optimizer = {"name": "sgd", "lr": 0.1}
    training = {"epochs": 2, "global_batch": 64, "virtual_shards": 4, "optimizer": optimizer}
    sections = {**DEADLINE_SECTIONS, "training": {**training, "strategy": "fsdp", "exact": False}}
    seen = facts(node(0, step=0), sections=sections)
    end = CREATED + 36_000 - 90 - 2 * 40
    assert nodes_needed(seen, end - SLACK * 1000 * 40 * 2 / 4 + 1) == 4, "three are no faster than two"


def test_on_demand_for_the_deadline_buys_what_is_short_and_no_more() -> None:
    wanted = [node(slot, bought=False) for slot in (1, 2, 3)]
    memory = {one.node: 0 for one in wanted}
    seen = facts(
        node(0, step=0),
        *wanted,
        offers=(A10G_A, FULL),
        sections=DEADLINE_SECTIONS,
        refused=memory,
        resting=resting(A10G_A),
    )
    tight = CREATED + 36_000 - 170 - SLACK * 1000 * 40 * 4 / 8 + 1
    assert nodes_needed(seen, tight) == 3
    assert [choice.candidates for choice in choices(seen, tight)] == [(FULL,), (FULL,), ()]
    pending = facts(node(0, step=0), *wanted, offers=(FULL,), sections=DEADLINE_SECTIONS, refused={"r.3.0": 0})
    assert choices(pending, tight)[0].candidates == (), "those on their way count"


def test_before_a_step_is_measured_the_deadline_needs_the_fewest_after_a_while() -> None:
    seen = facts(sections=DEADLINE_SECTIONS)
    assert nodes_needed(seen, CREATED + 3599) == 0
    assert nodes_needed(seen, CREATED + 3600) == 1
