"""A recommendation to rebalance: another machine takes over if there is a better one, and nobody leaves before."""

from __future__ import annotations

import dataclasses

from starling.infra.records import Market, Notice, NoticeKind
from starling.infra.store import Store
from starling.orchestrator.facts import NodeFacts
from starling.orchestrator.setbacks import SHUN_SECONDS
from tests.support.offers import on_demand, spot
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec

A, B = spot("g5.xlarge", "a", 0.4), spot("g5.xlarge", "b", 0.5)
FULL = on_demand("g5.xlarge", "c", 1.0)


def world_of(store: Store, *offers: object) -> SimulatedRun:
    return SimulatedRun(store, spec(nodes={"max": 1, "on_demand_after": "1m"}), offers=offers)


def recommend(world: SimulatedRun, node: str) -> None:
    notice = Notice(id="n", kind=NoticeKind.REBALANCE, seen_at=world.clock.now(), takes_effect_at=None)
    world.provider.announce(node, notice)


def zone_of(world: SimulatedRun, node: str) -> str:
    return world.intent(node).offer.zone


def test_the_replacement_is_bought_elsewhere_at_once_and_the_node_stays_until_it_is_ready(folder_store: Store) -> None:
    world = world_of(folder_store, A, B, FULL)
    controller = world.live(world.controller(), 10)
    assert zone_of(world, "sim.0.0") == "a"
    recommend(world, "sim.0.0")
    controller = world.live(controller, 2)
    assert world.provider.alive == ["sim.0.0", "sim.0.1"]
    assert zone_of(world, "sim.0.1") == "b"
    assert world.working() == ["sim.0.0"], "it works as long as nobody else could"
    world.live(controller, 10)
    assert world.working() == ["sim.0.1"]
    assert world.provider.alive == ["sim.0.1"]
    word = world.intent("sim.0.0")
    assert word.terminate is None, "it left by itself"
    assert word.leave is not None
    assert "sim.0.1 takes over" in word.leave.reason


def test_where_there_is_nothing_better_nothing_is_bought_at_any_price(folder_store: Store) -> None:
    world = world_of(folder_store, A, FULL)
    controller = world.live(world.controller(), 10)
    recommend(world, "sim.0.0")
    controller = world.live(controller, 2 * SHUN_SECONDS)
    assert world.provider.started == ["sim.0.0"]
    assert world.working() == ["sim.0.0"]
    world.provider.interrupt("sim.0.0", None)
    world.live(controller, 30)
    assert zone_of(world, "sim.0.1") == "a", "patience counts from the loss, not from the recommendation"
    assert world.intent("sim.0.1").offer.market is Market.SPOT


def test_recommendations_that_follow_from_pool_to_pool_buy_no_machine_after_the_other(folder_store: Store) -> None:
    world = world_of(folder_store, A, B)
    controller = world.live(world.controller(), 10)
    for _ in range(10):
        for node in world.provider.alive:
            if all(machine.notice is None for machine in world.provider.machines if machine.node == node):
                recommend(world, node)
        controller = world.live(controller, 30)
    assert world.provider.started == ["sim.0.0", "sim.0.1"]
    assert world.working() == ["sim.0.1"]


def test_a_replacement_that_is_refused_leaves_the_slot_as_it_is(folder_store: Store) -> None:
    world = world_of(folder_store, A, B, FULL)
    controller = world.live(world.controller(), 10)
    world.provider.set_room(B.key, 0)
    recommend(world, "sim.0.0")
    controller = world.live(controller, 300)
    assert world.provider.alive == ["sim.0.0"]
    assert world.working() == ["sim.0.0"]
    world.provider.interrupt("sim.0.0", None)  # it does come true, and now somebody is missing
    world.provider.set_room(A.key, 0)
    controller = world.live(controller, 20)
    assert world.provider.alive == [], "patience counts from the loss"
    world.live(controller, 200)
    (left,) = world.working()
    assert world.intent(left).offer.market is Market.ON_DEMAND


def test_an_interruption_while_the_replacement_boots_is_one_as_ever(folder_store: Store) -> None:
    world = world_of(folder_store, A, B)
    controller = world.live(world.controller(), 10)
    recommend(world, "sim.0.0")
    controller = world.live(controller, 1)
    world.provider.interrupt("sim.0.0", 2.0)
    world.live(controller, 10)
    assert world.working() == ["sim.0.1"]
    assert world.provider.started == ["sim.0.0", "sim.0.1"]


def test_a_node_that_does_not_leave_is_ended(folder_store: Store) -> None:
    world = world_of(folder_store, A, B)
    controller = world.live(world.controller(), 10)
    recommend(world, "sim.0.0")
    world.deaf_to_leave.add("sim.0.0")
    world.live(controller, 1000)
    word = world.intent("sim.0.0").terminate
    assert word is not None
    assert "it was asked to leave 900 s ago" in word.reason
    assert world.provider.alive == ["sim.0.1"]


def test_an_interruption_that_only_the_provider_knows_of_counts_for_more_than_a_recommendation(
    folder_store: Store,
) -> None:
    """Whichever of the two sources it is from, and whatever the other one said before."""
    world = world_of(folder_store, A)
    controller = world.live(world.controller(), 10)
    status = world.status("sim.0.0")
    assert status is not None
    advice, word = (
        Notice(id=kind, kind=kind, seen_at=world.clock.now(), takes_effect_at=None)
        for kind in (NoticeKind.REBALANCE, NoticeKind.INTERRUPTION)
    )
    for agent, provider in ((advice, word), (word, advice), (None, word), (word, None)):
        machine = dataclasses.replace(world.provider.machines[0], notice=provider)
        node = NodeFacts(intent=world.intent("sim.0.0"), status=status.but(notice=agent), machine=machine)
        assert node.announced
        assert not node.counts
    world.provider.announce("sim.0.0", word)
    world.live(controller, 2)
    assert world.provider.alive == ["sim.0.0", "sim.0.1"]
