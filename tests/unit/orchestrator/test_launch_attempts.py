"""A provider that refuses: attempts, rests, the full price; killed anywhere, doubled, or with answers lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from starling.infra.errors import ProviderUnavailable, QuotaReached
from starling.infra.journal import read_events
from starling.infra.providers.base import Launched, Pace
from starling.infra.records import Event, EventKind, Market, NodeIntent
from starling.infra.store import Store
from starling.orchestrator.runs import request_stop
from tests.support.offers import on_demand, spot
from tests.support.simulated_run import SimulatedRun, quick_store
from tests.support.specs import spec

SPOT_A, SPOT_B, FULL = spot(zone="a"), spot(zone="b", price=0.5), on_demand(zone="a")
OFFERS = (SPOT_A, SPOT_B, FULL)
PATIENT = {"max": 2, "on_demand_after": 100}
SIDE_EFFECTS = 100
"""More than the story below has until its nodes train, so that every one of them is tried."""


def world_of(store: Store, **more: Any) -> SimulatedRun:
    nodes = more.pop("nodes", {"max": 2})
    return SimulatedRun(store, spec(nodes=nodes, **more.pop("sections", {})), offers=OFFERS, **more)


def events_of(world: SimulatedRun, kind: EventKind) -> list[Event]:
    return [event for event in read_events(world.store, "sim") if event.kind is kind]


def bought(world: SimulatedRun) -> list[tuple[str, str, str]]:
    return [world.intent(node).offer.key for node in world.provider.started]


def test_what_was_bought_stands_in_the_intent_and_the_journal(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1})
    world.provider.set_room(SPOT_A.key, 0)
    world.live(world.controller(), 5)
    intent = world.intent("sim.0.0")
    assert intent.candidates == tuple(offer.but(gpus=0) for offer in (SPOT_A, SPOT_B))
    assert intent.offer.key == SPOT_B.key
    assert (intent.instance_id, intent.launched_at) == ("i-sim.0.0", 1_000_000.0)
    (event,) = events_of(world, EventKind.NODE_LAUNCHED)
    assert event.reason == "g5.xlarge in b, spot, $0.5 an hour"
    assert event.data["instance_id"] == "i-sim.0.0"


def test_partial_capacity_is_used_and_the_rest_waited_for(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 3})
    world.provider.set_room(SPOT_A.key, 0)
    world.provider.set_room(SPOT_B.key, 1)
    world.provider.set_room(SPOT_A.key, 2, at=world.clock.now() + 100)
    controller = world.live(world.controller(), 90)
    assert world.provider.started == ["sim.0.0"]
    world.live(controller, 300)
    assert sorted(bought(world)) == [SPOT_A.key, SPOT_A.key, SPOT_B.key]


def test_refusals_are_told_with_their_reasons(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1})
    world.provider.set_room(SPOT_A.key, 0)
    world.provider.set_room(SPOT_B.key, 0, refuse_as=QuotaReached)
    world.live(world.controller(), 2)
    (event,) = events_of(world, EventKind.LAUNCH_REFUSED)
    assert event.reason == "attempt 0: g5.xlarge in a, spot: none left; g5.xlarge in b, spot: none left"
    assert [refusal["kind"] for refusal in event.data["refusals"]] == ["NoCapacity", "QuotaReached"]
    reasons = [event.reason for event in events_of(world, EventKind.DECISION)]
    assert any("slot 0 waits: all offers were refused" in reason for reason in reasons)


def test_the_full_price_is_paid_only_after_the_patience(folder_store: Store) -> None:
    world = world_of(folder_store, nodes=PATIENT)
    for offer in (SPOT_A, SPOT_B):
        world.provider.set_room(offer.key, 0)
    controller = world.live(world.controller(), 98)
    assert world.provider.started == []
    world.live(controller, 12)
    assert bought(world) == [FULL.key, FULL.key]
    assert [world.intent(node).launched_at for node in world.provider.started] == [1_000_100.0] * 2


def test_an_attempt_that_somebody_else_has_made_is_not_made_again(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1})
    for offer in (SPOT_A, SPOT_B):
        world.provider.set_room(offer.key, 0)
    one, other = world.controller(), world.controller()
    for _ in range(200):
        one.one_pass()
        other.one_pass()
        world.clock.advance(1)
    attempts = [event.data["attempt"] for event in events_of(world, EventKind.LAUNCH_REFUSED)]
    assert attempts == [0, 0, 1, 1, 2, 2], "each hears of each refusal, and neither adds one"
    assert world.intent("sim.0.0").attempt == 2


def story(world: SimulatedRun) -> None:
    """Spot is refused at first, then there is one machine, then the other one is bought at the full price."""
    for offer in (SPOT_A, SPOT_B):
        world.provider.set_room(offer.key, 0)
    world.provider.set_room(SPOT_B.key, 1, at=world.clock.now() + 20)


def finish(world: SimulatedRun, controller: Any) -> None:
    """Everything ends well, and nothing is left."""
    world.live_until(controller, lambda: len(world.working()) == 2, at_most=600)
    started = [node for node in world.provider.started if node in world.provider.alive]
    assert [world.intent(node).instance_id for node in started] == [f"i-{node}" for node in started]
    request_stop(world.store, world.run, "enough", world.clock)
    world.live(controller, 30)
    world.live(world.controller(), 30)
    assert world.provider.machines == [], "a machine was leaked"
    assert len(world.provider.started) == 2, "a node was bought twice"


@pytest.mark.parametrize(("parallel", "lag"), [(1, 0.0), (2, 3.0)])
def test_killed_before_every_single_write_and_call(parallel: int, lag: float) -> None:
    deaths = 0
    for lives in range(SIDE_EFFECTS):
        with quick_store() as store:
            world = world_of(store, nodes=PATIENT, pace=Pace(parallel_launches=parallel), list_lag=lag)
            story(world)
            world.lives = lives
            controller = world.live(world.controller(), 130)
            died = world.lives is None
            world.lives = None
            finish(world, controller)
            assert sorted(bought(world)) == [FULL.key, SPOT_B.key]
        if not died:
            break
        deaths += 1
    assert 20 <= deaths < SIDE_EFFECTS, "the story is not what it was"


@pytest.mark.parametrize("lives", range(1, 8))
def test_killed_again_and_again(lives: int) -> None:
    with quick_store() as store:
        world = world_of(store, nodes=PATIENT)
        story(world)
        controller = world.controller()
        for _ in range(130):
            world.lives = lives
            controller = world.live(controller, 1)
        world.lives = None
        finish(world, controller)


def test_two_controllers_in_the_middle_of_each_other_at_every_point() -> None:
    for moment in range(0, 40, 2):
        with quick_store() as store:
            world = world_of(store, nodes=PATIENT)
            story(world)
            one, other = world.controller(), world.controller()
            world.intruders = {moment: other, moment + 3: other}
            for _ in range(130):
                world.live(one, 1)
                one, other = other, one
            world.intruders = {}
            finish(world, one)


def losing_answers(world: SimulatedRun) -> None:
    world.provider.fail_next("launch answer", ProviderUnavailable("no answer"), 3)


def failing_launches(world: SimulatedRun) -> None:
    world.provider.fail_next("launch", ProviderUnavailable("no answer"), 3)


@pytest.mark.parametrize("trouble", [losing_answers, failing_launches])
def test_a_launch_without_an_answer_is_repeated_and_adds_nothing(
    folder_store: Store, trouble: Callable[[SimulatedRun], None]
) -> None:
    world = world_of(folder_store, nodes=PATIENT, list_lag=3.0)
    trouble(world)
    controller = world.live(world.controller(), 15)
    assert sorted(world.working()) == ["sim.0.0", "sim.1.0"]
    assert [world.intent(node).attempt for node in world.provider.started] == [0, 0]
    request_stop(world.store, world.run, "enough", world.clock)
    world.live(controller, 30)
    assert world.provider.machines == []


def test_a_node_whose_launch_is_never_answered_gives_way_to_one_elsewhere(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1}, pace=Pace(boot=300.0))
    sold = world.provider.launch

    def launch(intent: NodeIntent, store_uri: str) -> Launched:
        if (intent.candidates or (intent.offer,))[0].key == SPOT_A.key:
            raise ProviderUnavailable("the host does not answer")
        return sold(intent, store_uri)

    world.provider.launch = launch  # type: ignore[method-assign]
    controller = world.live(world.controller(), 290)
    assert world.intent("sim.0.0").terminate is None
    world.live(controller, 60)
    word = world.intent("sim.0.0").terminate
    assert word is not None
    assert "not answered for 300 s" in word.reason
    assert world.intent("sim.0.0").gone_reason == "it was never launched"
    assert bought(world) == [SPOT_B.key]
    assert world.working() == ["sim.0.1"]


def test_nothing_is_given_up_while_the_list_does_not_answer_either(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1}, pace=Pace(boot=300.0))
    controller = world.live(world.controller(), 0)
    for operation in ("launch", "list"):
        world.provider.fail_next(operation, ProviderUnavailable("no network"), 1000)
    world.live(controller, 700)
    assert world.intent("sim.0.0").terminate is None


def test_a_successor_finds_out_which_candidate_a_machine_is(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1})
    world.provider.set_room(SPOT_A.key, 0)
    dying = world.controller()
    world.lives = 4  # reason, intent, event, launch; not what was bought
    world.live(dying, 1)
    assert world.provider.started == ["sim.0.0"]
    assert world.intent("sim.0.0").offer.key == SPOT_A.key
    world.live(world.controller(), 1)
    assert world.intent("sim.0.0").offer.key == SPOT_B.key
    assert world.intent("sim.0.0").offer.market is Market.SPOT
    assert len(events_of(world, EventKind.NODE_LAUNCHED)) == 1


def test_a_node_taken_back_while_waiting_for_capacity_is_not_launched(folder_store: Store) -> None:
    world = world_of(folder_store, nodes={"max": 1})
    world.provider.capacity = 0
    controller = world.live(world.controller(), 10)
    request_stop(world.store, world.run, "never mind", world.clock)
    world.provider.capacity = 1
    assert world.live(controller, 60) is controller
    assert world.provider.started == []
    assert world.provider.calls[-1] == ("close", "sim")


def test_until_the_machine_is_known_the_dearest_candidate_counts(folder_store: Store) -> None:
    """On the spot market, what it may come to cost: the full price, or what the user would pay at most."""
    sections = {"limits": {"budget": 10.0}}
    world = world_of(folder_store, nodes={"max": 1}, sections=sections)
    world.provider.sell(SPOT_A, SPOT_B.but(on_demand_price=1.5))
    world.provider.set_room(SPOT_B.key, 0)
    world.provider.fail_next("launch", ProviderUnavailable("no answer"))
    controller = world.live(world.controller(), 1)
    assert world.intent("sim.0.0").authorised_until == pytest.approx(1_000_000 + 10 / 1.5 * 3600)
    world.live(controller, 20)
    assert world.intent("sim.0.0").offer.key == SPOT_A.key
    assert world.intent("sim.0.0").authorised_until == pytest.approx(1_000_000 + 10 / 1.0 * 3600, abs=60)
