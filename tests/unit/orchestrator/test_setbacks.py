"""Whether a node was of use, for what comes after it."""

from __future__ import annotations

import pytest

from starling.infra.providers.base import Machine
from starling.infra.records import (
    Market,
    NodeEnd,
    NodeIntent,
    NodeState,
    NodeStatus,
    Notice,
    NoticeKind,
    Offer,
    Progress,
    RunRecord,
)
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.setbacks import FIRST_WAIT_SECONDS, SHUN_SECONDS, hopeless, launch_not_before, shunned
from tests.support.specs import spec

OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)


def ended(generation: int, *, started: bool) -> NodeFacts:
    """A node that ended 10 s after its launch, by its agent's own word; its last progress is of this kind."""
    at = 100.0 * generation
    node = f"r.0.{generation}"
    progress = Progress(
        at=at, step=0, total_steps=0, epoch=0, round=generation, world_size=1, rank=0, active_at=at, started=started
    )
    intent = NodeIntent(
        node=node,
        run="r",
        incarnation=0,
        slot=0,
        generation=generation,
        offer=OFFER,
        wanted_at=at,
        authorised_until=None,
        launched_at=at,
        gone_at=at + 10,
    )
    status = NodeStatus(
        node=node,
        run="r",
        state=NodeState.ENDED,
        at=at + 10,
        booted_at=at,
        address="127.0.0.1",
        instance_id="i",
        progress=progress,
        ended=NodeEnd(at=at + 10, reason="its supervisor crashed again and again"),
    )
    return NodeFacts(intent=intent, status=status)


@pytest.mark.parametrize(("started", "waits"), [(False, True), (True, False)])
def test_a_node_that_only_filled_its_folder_was_of_no_use(started: bool, waits: bool) -> None:
    chain = [ended(generation, started=started) for generation in range(3)]
    assert launch_not_before(chain) == (210.0 + 2 * FIRST_WAIT_SECONDS if waits else 0.0)


def lived(slot: int, generation: int, start: float, seconds: float) -> NodeFacts:
    """A node that waited for others, and gave up."""
    before = ended(generation, started=False)
    node, end = f"r.{slot}.{generation}", start + seconds
    intent = before.intent.but(node=node, slot=slot, wanted_at=start, launched_at=start, gone_at=end)
    assert before.status is not None
    last = NodeEnd(at=end, reason="idle: in no round for 600 s")
    return NodeFacts(intent=intent, status=before.status.but(node=node, booted_at=start, progress=None, ended=last))


def test_nodes_that_waited_in_vain_for_others_do_not_end_a_run_in_a_shortage() -> None:
    alone = [lived(0, generation, 700.0 * generation, 600.0) for generation in range(12)]
    assert hopeless(facts(2, *alone), 9000.0) is None
    told = hopeless(facts(1, *alone), 9000.0)
    assert told is not None, "a single node is enough for this one: it is at fault"
    assert "12 nodes in a row" in told


def test_nodes_that_had_company_enough_and_gave_up_do_end_it() -> None:
    both = [lived(slot, generation, 700.0 * generation, 600.0) for generation in range(3) for slot in (0, 1)]
    assert "3 nodes in a row" in (hopeless(facts(2, *both), 9000.0) or "")


def test_alone_or_not_what_ends_at_once_does_end_it() -> None:
    quick = [lived(0, generation, 700.0 * generation, 30.0) for generation in range(3)]
    assert "3 nodes in a row" in (hopeless(facts(2, *quick), 9000.0) or "")


@pytest.mark.parametrize("least", [1, 2])
def test_nodes_that_fail_together_after_a_slow_start_do_end_it(least: int) -> None:
    both = [
        lived(slot, generation, 700.0 * generation, 150.0 + 5 * ((slot + generation) % 2))
        for generation in range(4)
        for slot in range(least)
    ]
    assert "4 nodes in a row" in (hopeless(facts(least, *both), 9000.0) or "")


def test_a_node_that_was_never_bought_between_two_others_changes_nothing() -> None:
    first, second, third = (ended(generation, started=False) for generation in range(3))
    second = NodeFacts(intent=second.intent.but(launched_at=None, gone_reason="it was never launched"))
    assert launch_not_before([first, second, third]) == launch_not_before([first, third]) > 0.0


def test_what_was_never_bought_is_no_setback() -> None:
    never = [
        NodeFacts(intent=node.intent.but(launched_at=None, gone_at=node.intent.wanted_at, gone_reason="never launched"))
        for node in (ended(generation, started=False) for generation in range(12))
    ]
    assert launch_not_before(never) == 0.0
    assert hopeless(facts(1, *never), 9000.0) is None


def taken(generation: int, how: str) -> NodeFacts:
    """A node whose machine was shut down while it booted, because the provider wanted it back; who knows that?"""
    node = ended(generation, started=False)
    assert node.status is not None
    intent, end = node.intent, intent_end(node)
    status = node.status.but(progress=None, ended=NodeEnd(at=end, reason="the machine was shut down while it booted"))
    if how == "recorded":
        return NodeFacts(intent=intent.but(taken=True), status=status)
    if how == "said by stage 1":
        notice = Notice(id="n", kind=NoticeKind.INTERRUPTION, seen_at=end, takes_effect_at=end)
        return NodeFacts(intent=intent, status=status.but(notice=notice))
    machine = Machine(
        node=node.node, instance_id="i", alive=False, launched_at=intent.launched_at, ended_at=end, taken=True
    )
    return NodeFacts(intent=intent.but(gone_at=None), status=status, machine=machine)


def intent_end(node: NodeFacts) -> float:
    assert node.intent.gone_at is not None
    return node.intent.gone_at


@pytest.mark.parametrize("how", ["recorded", "said by stage 1", "seen by the provider"])
def test_a_shortage_that_takes_nodes_as_they_boot_is_waited_out_and_ends_no_run(how: str) -> None:
    chain = [taken(generation, how) for generation in range(12)]
    assert hopeless(facts(1, *chain), 9000.0) is None
    assert launch_not_before(chain[:3]) == 210.0 + 2 * FIRST_WAIT_SECONDS
    last = intent_end(ended(11, started=False))
    assert shunned(facts(1, *chain), last + SHUN_SECONDS - 1) == {OFFER.key}
    assert shunned(facts(1, *chain), last + SHUN_SECONDS) == set()


def test_what_was_of_use_before_it_was_taken_is_no_setback() -> None:
    trained = [ended(generation, started=True) for generation in range(2)]
    chain = [NodeFacts(intent=node.intent.but(taken=True), status=node.status) for node in trained]
    assert launch_not_before(chain) == 0.0
    assert shunned(facts(1, *chain), 120.0) == set()


def test_nodes_that_were_taken_between_others_excuse_nobody() -> None:
    failing = [ended(generation, started=False) for generation in (0, 2, 4)]
    between = [taken(generation, "recorded") for generation in (1, 3, 5)]
    chain = sorted([*failing, *between], key=lambda node: node.intent.generation)
    assert "3 nodes in a row" in (hopeless(facts(1, *chain), 9000.0) or "")
    assert hopeless(facts(1, *chain[:4]), 9000.0) is None, "two of these have failed"


def unfit(node: NodeFacts) -> NodeFacts:
    assert node.status is not None
    return NodeFacts(intent=node.intent, status=node.status.but(unfit="no GPU", progress=None))


def test_a_machine_that_was_being_taken_is_not_called_unfit() -> None:
    sick = [unfit(ended(generation, started=False)) for generation in range(2)]
    assert hopeless(facts(1, *sick, unfit(taken(2, "recorded"))), 9000.0) is None
    assert "were unfit" in (hopeless(facts(1, *sick, unfit(ended(2, started=False))), 9000.0) or "")


def facts(least: int, *nodes: NodeFacts) -> Facts:
    record = RunRecord(run="r", created_at=0.0)
    return Facts(run=record, spec=spec(nodes={"min": least, "max": 3}), verdict=None, nodes=nodes)
