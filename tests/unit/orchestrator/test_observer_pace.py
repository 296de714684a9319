"""How often the provider is asked: seldom while all is well, often while machines come and go."""

from __future__ import annotations

from starling.infra.providers.base import Pace
from starling.infra.records import Notice, NoticeKind
from starling.infra.store import Store
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.runs import request_stop
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec

CLOUD = Pace(look=2.0, list_busy=5.0, list_calm=60.0, settle=30.0, boot=900.0, offers=300.0)


def asked(world: SimulatedRun) -> int:
    return sum(world.provider.asked.values())


def test_in_steady_state_there_is_one_call_a_minute(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(), pace=CLOUD)
    controller = world.live(world.controller(), 60)
    before, offers = asked(world), world.provider.asked["offers"]
    world.live(controller, 600)
    assert asked(world) - before == 10
    assert world.provider.asked["offers"] == offers == 1


def test_while_nodes_come_up_the_list_is_looked_at_often_but_not_too_often(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(), pace=CLOUD)
    world.hung = {"sim.0.0", "sim.1.0", "sim.2.0"}  # they boot
    world.live(world.controller(), 50)
    assert world.provider.asked["list"] == 10


def test_a_quiet_node_is_looked_after(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}), pace=CLOUD)
    controller = world.live(world.controller(), 61)
    world.provider.interrupt("sim.0.0", None)  # right after a listing
    world.live(controller, 30)
    assert world.working() == ["sim.0.1"], "found out after 15 s of silence, not after the next minute"


def test_the_pace_sets_the_time_to_the_next_look(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}), pace=CLOUD)
    controller = world.controller()
    assert controller.one_pass() == 1.0, "something was done"
    world.agents_act()
    assert controller.one_pass() == 2.0


def test_the_replacement_is_asked_for_whichever_source_saw_the_notice_first(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    notice = Notice(id="n", kind=NoticeKind.INTERRUPTION, seen_at=world.clock.now(), takes_effect_at=None)
    world.provider.announce("sim.0.0", notice)
    world.live(controller, 2)
    assert world.provider.alive == ["sim.0.0", "sim.0.1"]
    assert world.intent("sim.0.0").terminate is None, "it works for as long as it lives"


def test_all_releases_of_a_pass_are_one_call_after_all_words(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec())
    controller = world.live(world.controller(), 10)
    world.hung = set(world.provider.alive)
    before = world.provider.asked["terminate"]
    world.live(controller, 65)
    assert world.provider.asked["terminate"] == before + 1
    assert sorted(world.provider.alive) == ["sim.0.1", "sim.1.1", "sim.2.1"]


def test_what_was_released_is_not_released_again_before_it_was_looked_at(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}), pace=CLOUD)
    controller = world.live(world.controller(), 10)
    request_stop(folder_store, "sim", "enough", world.clock)
    world.hung.add("sim.0.0")
    word = world.intent("sim.0.0").authorised_until
    assert word is None
    world.clock.advance(1600)
    world.live(controller, 60)
    assert world.provider.asked["terminate"] == 1
    assert world.provider.machines == []


def test_a_machine_that_is_not_listed_yet_is_not_taken_for_gone(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}), pace=CLOUD, list_lag=25.0)
    world.hung.add("sim.0.0")
    world.live(world.controller(), 120)
    assert world.provider.started == ["sim.0.0"]
    assert world.intent("sim.0.0").gone_at is None


def test_nodes_that_never_report_are_not_bought_for_ever(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}), pace=Pace(look=5.0, boot=300.0))
    world.hung = {f"sim.0.{generation}" for generation in range(30)}
    world.live(world.controller(), 6000)
    assert len(world.provider.started) == 10
    assert world.provider.alive == []
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert "10 nodes in a row" in verdict.reason
