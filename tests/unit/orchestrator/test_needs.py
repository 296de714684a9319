"""A run that needs others: buys nothing before they are done, and says what becomes of it if they never are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from starling.infra import layout
from starling.infra.errors import UsageError
from starling.infra.records import NodeState, NodeStatus, Progress, RunState, Verdict
from starling.infra.store import Store
from starling.orchestrator.needs import WAIT_SECONDS
from starling.orchestrator.reading import RunReader, read_verdict
from starling.orchestrator.report import status
from starling.orchestrator.runs import change_run, create_run, request_stop, resume_run
from tests.support.simulated_run import SimulatedRun, quick_store
from tests.support.specs import spec


@pytest.fixture
def store() -> Iterator[Store]:
    with quick_store() as opened:
        yield opened


@pytest.fixture
def world(store: Store) -> SimulatedRun:
    """The run "sim", which needs the run "low"."""
    create_run(store, spec(), name="low")
    return SimulatedRun(store, spec(needs={"lowres": "low"}, nodes={"max": 2}, limits={"max_duration": 600}))


def ended(world: SimulatedRun, state: RunState, reason: str = "it is so", incarnation: int = 0) -> None:
    verdict = Verdict(state=state, at=world.clock.now(), by="test", reason=reason)
    world.store.create(layout.verdict("low", incarnation), verdict.to_bytes())


def told(world: SimulatedRun) -> dict[str, object]:
    return status(RunReader(world.store, "sim").view((), world.clock.now()))


def test_nothing_is_bought_before_the_needed_run_is_done(world: SimulatedRun) -> None:
    controller = world.live(world.controller(), 30)
    assert not world.provider.machines
    assert 0 < (controller.one_pass() or 0) <= WAIT_SECONDS
    ended(world, RunState.DONE)
    world.live(controller, 30)
    assert len(world.working()) == 2


def test_the_reason_is_written_once_however_far_the_needed_run_is(world: SimulatedRun) -> None:
    controller = world.controller()
    for step in (3, 4, 5):
        trains(world, step)
        world.live(controller, 10)
    reasons = [event.reason for event in RunReader(world.store, "sim").events() if event.kind == "decision"]
    assert reasons == ["waits for run low (needs.lowres)"]


def trains(world: SimulatedRun, step: int) -> None:
    progress = Progress(at=0, step=step, total_steps=460, epoch=0, round=0, world_size=1, rank=0)
    node = NodeStatus(
        node="low.0.0",
        run="low",
        state=NodeState.TRAINING,
        at=world.clock.now(),
        booted_at=0,
        address="",
        instance_id="i",
        progress=progress,
    )
    world.store.put(layout.status("low.0.0"), node.to_bytes())


def test_the_status_says_how_far_the_needed_run_is(world: SimulatedRun) -> None:
    assert told(world)["reason"] == "waits for run low (needs.lowres, pending)"
    trains(world, 120)
    assert told(world)["reason"] == "waits for run low (needs.lowres, step 120 of 460)"
    assert told(world)["needs"] == {"lowres": {"run": "low", "state": "running", "step": 120, "total_steps": 460}}
    ended(world, RunState.DONE)
    assert told(world)["reason"] is None


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED])
def test_a_needed_run_that_ends_otherwise_is_the_end_of_this_one(world: SimulatedRun, state: RunState) -> None:
    controller = world.live(world.controller(), 10)
    ended(world, state, "the disk is full")
    world.live(controller, 30)
    verdict = read_verdict(world.store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.FAILED
    for word in ("run low (needs.lowres)", state.value, "the disk is full", "`starling resume low`"):
        assert word in verdict.reason
    assert verdict.reason.endswith("then `starling resume sim`")
    assert not world.provider.machines


def test_it_goes_on_after_both_were_resumed_in_this_order(world: SimulatedRun) -> None:
    ended(world, RunState.FAILED)
    world.live(world.controller(), 30)
    with pytest.raises(UsageError, match="starling resume low"):
        resume_run(world.store, "sim", [])
    resume_run(world.store, "low", [])
    resume_run(world.store, "sim", [])
    controller = world.live(world.controller(), 30)
    assert not world.provider.machines
    ended(world, RunState.DONE, incarnation=1)
    world.live(controller, 30)
    assert world.working()


def test_a_needed_run_that_vanished_is_named(store: Store) -> None:
    world = SimulatedRun(store, spec(needs={"lowres": "gone"}))
    world.live(world.controller(), 10)
    verdict = read_verdict(store, "sim", 0)
    assert verdict is not None
    assert "there is no run gone (needs.lowres)" in verdict.reason


def test_waiting_does_not_count_for_the_longest_duration(world: SimulatedRun) -> None:
    controller = world.live(world.controller(), 900)
    assert read_verdict(world.store, "sim", 0) is None
    assert world.record().stop is None
    ended(world, RunState.DONE)
    controller = world.live(controller, 300)
    assert world.record().stop is None
    assert len(world.working()) == 2
    world.live(controller, 400)
    stop = world.record().stop
    assert stop is not None
    assert "limits.max_duration" in stop.reason


def test_a_waiting_run_can_be_stopped_and_the_needed_one_goes_on(world: SimulatedRun) -> None:
    controller = world.live(world.controller(), 10)
    request_stop(world.store, "sim", "enough")
    world.live(controller, 30)
    verdict = read_verdict(world.store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.STOPPED
    assert read_verdict(world.store, "low", 0) is None
    assert RunReader(world.store, "low").record().stop is None


def test_a_waiting_run_asks_the_provider_for_nothing_to_buy(world: SimulatedRun) -> None:
    asked: list[str] = []
    offers = world.provider.offers

    def counted(*, gpus: int, market: str) -> object:
        asked.append(market)
        return offers(gpus=gpus, market=market)

    world.provider.offers = counted  # type: ignore[method-assign, assignment]
    controller = world.live(world.controller(), 30)
    assert asked == []
    ended(world, RunState.DONE)
    world.live(controller, 30)
    assert asked


def test_a_run_that_is_stopping_is_waited_for(world: SimulatedRun) -> None:
    request_stop(world.store, "low", "enough")
    assert told(world)["reason"] == "waits for run low (needs.lowres, stopping)"
    change_run(world.store, "low", lambda record: record.but(stop=None))
    assert told(world)["reason"] == "waits for run low (needs.lowres, pending)"
