"""Whole runs in simulated time: whatever happens to nodes, provider and controllers, nothing is doubled or leaked."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starling.infra import layout
from starling.infra.errors import NoCapacity, ProviderError, ProviderUnavailable, StoreUnavailable
from starling.infra.journal import read_events
from starling.infra.providers.fake import FakeProvider
from starling.infra.records import EventKind, NodeIntent, RunState, Verdict
from starling.infra.store import Store
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.runs import request_stop, resume_run
from tests.support.simulated_run import Killed, SimulatedRun, quick_store
from tests.support.specs import spec

LONG_ENOUGH = 700.0
EXAMPLES = 20
"""Each is a whole run; more were tried when this was written, and the same ones are tried every time."""

WHAT_HAPPENS = st.one_of(
    st.tuples(st.just("time"), st.integers(1, 8)),
    st.tuples(st.just("long time"), st.just(70)),
    st.tuples(st.just("taken"), st.integers(0, 2)),
    st.tuples(st.just("noticed"), st.integers(0, 2)),
    st.tuples(st.just("hung"), st.integers(0, 2)),
    st.tuples(st.just("controller dies"), st.integers(0, 12)),
    st.tuples(st.just("capacity"), st.integers(0, 4)),
    st.tuples(st.just("launch fails"), st.integers(1, 3)),
    st.tuples(st.just("answers lost"), st.integers(1, 3)),
    st.tuples(st.just("list fails"), st.integers(1, 3)),
    st.tuples(st.just("terminate fails"), st.integers(1, 2)),
    st.tuples(st.just("second controller"), st.integers(1, 3)),
)


def happen(world: SimulatedRun, what: str, number: int) -> None:
    alive = world.provider.alive
    node = alive[number % len(alive)] if alive else None
    match what:
        case "taken" if node:
            world.provider.interrupt(node, None)
        case "noticed" if node and node not in world.provider.notices:
            world.provider.interrupt(node, 5.0)
        case "hung" if node:
            world.hung.add(node)
        case "controller dies":
            world.lives = number
        case "capacity":
            world.provider.capacity = number
        case "answers lost":
            world.provider.fail_next("launch answer", ProviderUnavailable("no answer"), number)
        case "launch fails" | "list fails" | "terminate fails":
            world.provider.fail_next(what.split()[0], ProviderError("throttled"), number)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(WHAT_HAPPENS, max_size=14))
def test_nothing_is_doubled_or_leaked(story: list[tuple[str, int]]) -> None:
    with quick_store() as store:
        world = SimulatedRun(store, spec(), list_lag=2.0)
        controller = world.live(world.controller(), 2)
        for what, number in story:
            happen(world, what, number)
            if what == "second controller":
                second = world.live(world.controller(), number)
                world.live(second, 1)
            controller = world.live(controller, number if "time" in what else 2)
        world.provider.capacity = None
        world.lives = None
        controller = world.live_until(
            controller, lambda: len(world.working()) == 3 or _verdict(world) is not None, at_most=LONG_ENOUGH
        )
        given_up = _verdict(world)
        request_stop(world.store, world.run, "enough", world.clock)
        world.live_until(controller, lambda: world.provider.machines == [], at_most=LONG_ENOUGH)

        assert world.provider.alive == []
        verdict = _verdict(world)
        assert verdict is not None
        assert verdict.state is (RunState.STOPPED if given_up is None else RunState.FAILED)
        intents = [world.intent(node) for node in world.provider.started]
        assert all(intent.gone_at is not None for intent in intents)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 6), min_size=1, max_size=25))
def test_a_controller_killed_between_any_two_actions_loses_nothing(lives: list[int]) -> None:
    with quick_store() as store:
        world = SimulatedRun(store, spec())
        controller = world.controller()
        for number, some in enumerate(lives):
            world.lives = some
            if number % 3 == 2 and world.provider.alive:
                world.provider.interrupt(world.provider.alive[0], None)
            controller = world.live(controller, 3)
        world.lives = None
        controller = world.live(controller, 60)
        assert len(world.working()) == 3
        request_stop(world.store, world.run, "enough", world.clock)
        for some in lives:
            world.lives = some
            controller = world.live(controller, 2)
        world.lives = None
        world.live(controller, 60)
        assert world.provider.alive == []
        assert world.provider.machines == [], "leftovers were not cleared up"


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_two_controllers_acting_in_the_middle_of_each_other(moments: list[int]) -> None:
    with quick_store() as store:
        world = SimulatedRun(store, spec())
        one, other = world.controller(), world.controller()
        for number, moment in enumerate(moments):
            world.intruders = {moment: other}
            if number % 2 and world.provider.alive:
                world.provider.interrupt(world.provider.alive[number % len(world.provider.alive)], None)
            world.live(one, 2)
            one, other = other, one
        world.intruders = {}
        world.live(one, 60)
        assert len(world.working()) == 3
        request_stop(world.store, world.run, "enough", world.clock)
        world.intruders = {moments[0]: other}
        world.live(one, 30)
        world.live(other, 30)
        assert world.provider.machines == []


def test_fills_all_slots_and_then_rests(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec())
    controller = world.live(world.controller(), 10)
    assert sorted(world.working()) == ["sim.0.0", "sim.1.0", "sim.2.0"]
    calls = list(world.provider.calls)
    world.live(controller, 30)
    assert world.provider.calls == calls


def test_an_announced_node_is_replaced_before_it_goes(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    # An agent that only notes the notice, and stays until it is taken.
    world.provider.interrupt("sim.0.0", 60.0)
    world.agents_act()
    world.live(controller, 3)
    assert "sim.0.1" in world.provider.started
    taken_at = world.intent("sim.0.0").gone_at
    assert taken_at is None or taken_at > world.intent("sim.0.1").wanted_at


def test_a_lost_node_is_replaced_in_its_slot_and_its_bill_ends(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec())
    controller = world.live(world.controller(), 10)
    lost_at = world.clock.now()
    world.provider.interrupt("sim.1.0", None)
    world.live(controller, 6)
    assert sorted(world.working()) == ["sim.0.0", "sim.1.1", "sim.2.0"]
    assert world.intent("sim.1.0").gone_at == lost_at
    ends = [event for event in read_events(folder_store, "sim") if event.kind is EventKind.NODE_ENDED]
    assert [event.subject for event in ends] == ["sim.1.0"]


def test_a_silent_machine_is_released_and_replaced(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    controller = world.live(controller, 55)
    assert world.provider.alive == ["sim.0.0"], "released too early"
    world.live(controller, 20)
    assert world.provider.alive == ["sim.0.1"]
    assert "silent" in (world.intent("sim.0.0").terminate or 1).reason


def test_silence_while_the_store_was_away_means_nothing(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    # The controller cannot see for minutes; nor could the agent write.
    world.provider.fail_next("list", StoreUnavailable("away"), 6)
    for _ in range(6):
        controller.one_pass()
        world.clock.advance(60)
    controller.one_pass()
    world.hung.clear()
    world.live(controller, 20)
    assert world.provider.alive == ["sim.0.0"]


def test_a_stray_machine_gets_an_intent_that_says_terminate_and_goes(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 5)
    stray = world.intent("sim.0.0").but(node="sim.7.3", slot=7, generation=3)
    FakeProvider.launch(world.provider, stray, folder_store.uri)
    controller.one_pass()
    assert "sim.7.3" not in world.provider.alive
    assert world.intent("sim.7.3").terminate is not None


def test_no_capacity_is_waited_for_with_longer_and_longer_pauses(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.capacity = 0
    began = world.clock.now()
    controller = world.live(world.controller(), 1000)
    refusals = [event for event in read_events(folder_store, "sim") if event.kind is EventKind.LAUNCH_REFUSED]
    pauses = [round(two.at - one.at) for one, two in pairwise(refusals)]
    assert pauses == [30, 60, 120, 240, 480]
    assert refusals[0].reason == "attempt 0: fake.1x in fake-a, spot: none left"
    assert world.intent("sim.0.0").attempt == 5
    world.provider.capacity = 1
    world.live(controller, 900)
    assert world.working() == ["sim.0.0"]
    assert world.intent("sim.0.0").wanted_at == began


def test_three_unfit_nodes_in_a_row_fail_the_run(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.unfit = {f"sim.0.{generation}" for generation in range(9)}
    world.live(world.controller(), 60)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.FAILED
    assert "no such instruction" in verdict.reason
    assert len(world.provider.started) == 3
    assert world.provider.alive == []


def test_nodes_that_give_up_at_once_are_not_bought_for_ever(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.broken = True
    world.live(world.controller(), 600)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert "supervisor crashed" in verdict.reason
    assert len(world.provider.started) == 3


def test_the_budget_is_a_limit(folder_store: Store) -> None:
    # 3 nodes at $36 an hour burn $0.03 a second: $6 last 200 s.
    world = SimulatedRun(folder_store, spec(limits={"budget": 6.0}), price=36.0)
    world.live(world.controller(), 400)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.STOPPED
    assert "budget" in verdict.reason
    spent = sum(_seconds(world.intent(node)) for node in world.provider.started) * 36 / 3600
    assert 4.5 < spent <= 6.0


def test_without_a_controller_nodes_still_keep_to_the_budget(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(limits={"budget": 6.0}), price=36.0)
    controller = world.live(world.controller(), 20)
    del controller
    ends = {}
    for _ in range(400):
        world.agents_act()
        for machine in world.provider.machines:
            if not machine.alive:
                ends.setdefault(machine.node, machine.ended_at - machine.launched_at)
        world.clock.advance(1.0)
    assert world.provider.alive == []
    assert sum(ends.values()) * 36 / 3600 <= 6.0 + 3 * 0.01


def test_fewer_nodes_may_run_longer_on_the_same_budget(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(limits={"budget": 60.0}), price=36.0)
    controller = world.live(world.controller(), 5)
    before = world.intent("sim.0.0").authorised_until
    world.provider.capacity = 1
    world.provider.interrupt("sim.1.0", None)
    world.provider.interrupt("sim.2.0", None)
    world.live(controller, 3)
    after = world.intent("sim.0.0").authorised_until
    # Both slots are wanted again, so all three stay paid for.
    assert before is not None
    assert after is not None
    assert abs(after - before) < 60


def test_max_duration_stops_the_run(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(limits={"max_duration": "100s"}))
    world.live(world.controller(), 150)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.STOPPED
    assert "max_duration" in verdict.reason
    assert verdict.at <= 1_000_100


def test_a_resumed_run_goes_on_with_new_nodes(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    request_stop(folder_store, "sim", "pause", world.clock)
    world.live(controller, 20)
    assert read_verdict(folder_store, "sim", 0) is not None
    resume_run(folder_store, "sim", ["nodes.max=1"], world.clock)
    world.live(world.controller(), 20)
    assert world.working() == ["sim.0.1"]
    assert world.intent("sim.0.1").incarnation == 1


def test_nodes_of_an_earlier_incarnation_are_released(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    request_stop(folder_store, "sim", "pause", world.clock)
    record = world.record().but(incarnation=1, stop=None)
    folder_store.put(layout.run_record("sim"), record.to_bytes())
    folder_store.put(layout.spec("sim", 1), folder_store.get(layout.spec("sim", 0)).data)
    assert controller.one_pass() is None
    world.live(world.controller(), 10)
    assert world.provider.alive == ["sim.0.1"]


def test_an_intent_left_without_a_launch_is_launched_by_the_successor(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.controller()
    for lives in range(1, 4):
        world.lives = lives
        try:
            controller.one_pass()
        except Killed:
            controller = world.controller()
    world.lives = None
    controller.one_pass()
    assert world.provider.started == ["sim.0.0"]


def test_one_refused_launch_does_not_keep_others_back(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec())
    world.provider.fail_next("launch", NoCapacity("none"))
    world.controller().one_pass()
    assert world.provider.started == ["sim.1.0", "sim.2.0"]


def _verdict(world: SimulatedRun) -> Verdict | None:
    return read_verdict(world.store, world.run, 0)


def _seconds(intent: NodeIntent) -> float:
    assert intent.launched_at is not None
    assert intent.gone_at is not None
    return intent.gone_at - intent.launched_at
