"""What the provider cannot do: wait, tell the user, give up; never taken for missing capacity."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import (
    CredentialsExpired,
    Misconfigured,
    NotAuthorised,
    ProviderError,
    StoreCredentialsExpired,
    Throttled,
)
from starling.infra.journal import read_events
from starling.infra.records import EventKind, RunState
from starling.infra.store import Store
from starling.orchestrator.decide import FORBIDDEN_SECONDS
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.runs import request_stop
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec

FORBIDDEN = NotAuthorised("launch sim.0.0: ec2:CreateFleet is missing")


def decisions(world: SimulatedRun) -> list[str]:
    return [event.reason for event in read_events(world.store, "sim") if event.kind is EventKind.DECISION]


def launches(world: SimulatedRun) -> int:
    return world.provider.asked["launch"]


OPERATIONS = pytest.mark.parametrize("operation", ["launch", "list", "offers"])


def failed_because(world: SimulatedRun, error: ProviderError) -> None:
    verdict = read_verdict(world.store, "sim", 0)
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (RunState.FAILED, str(error))
    assert world.provider.started == []
    assert world.provider.calls[-1] == ("close", "sim"), "the controller has finished"


@OPERATIONS
def test_without_a_node_a_wrong_setting_ends_the_run_at_once(folder_store: Store, operation: str) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    error = Misconfigured("provider.image: there is no such image")
    world.provider.fail_next(operation, error, 1)
    world.live(world.controller(), 20)
    failed_because(world, error)


@OPERATIONS
def test_without_a_node_a_permission_that_stays_missing_ends_the_run(folder_store: Store, operation: str) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.fail_next(operation, FORBIDDEN, 100)
    controller = world.live(world.controller(), FORBIDDEN_SECONDS - 5)
    assert read_verdict(folder_store, "sim", 0) is None
    tried = world.provider.asked[operation]
    world.live(controller, 20)
    failed_because(world, FORBIDDEN)
    assert (tried, world.provider.asked[operation]) == (3, 4), "every minute, and at last once more"


@OPERATIONS
def test_a_permission_that_is_on_its_way_is_waited_for_and_told_at_once(folder_store: Store, operation: str) -> None:
    """Such as a policy that was attached a moment ago."""
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.fail_next(operation, FORBIDDEN, 3)
    controller = world.live(world.controller(), 5)
    assert decisions(world)[-1].endswith(f"trying again every minute: {FORBIDDEN}")
    world.live(controller, 200)
    assert world.working() == ["sim.0.0"]
    assert read_verdict(folder_store, "sim", 0) is None


def test_only_the_same_trouble_counts_on(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.fail_next("launch", FORBIDDEN, 3)
    world.provider.fail_next("launch", Throttled("slow down"), 1)
    world.provider.fail_next("launch", FORBIDDEN, 3)
    world.live(world.controller(), 2 * FORBIDDEN_SECONDS + 30)
    assert launches(world) == 8
    assert world.working() == ["sim.0.0"]


def test_with_a_node_it_goes_on_and_tries_again_every_minute(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 2}))
    controller = world.live(world.controller(), 10)
    world.provider.fail_next("launch", FORBIDDEN, 5)
    before = launches(world)
    world.provider.interrupt("sim.1.0", None)
    controller = world.live(controller, 240)
    assert launches(world) == before + 4
    assert read_verdict(folder_store, "sim", 0) is None
    assert world.working() == ["sim.0.0"]
    (told,) = {reason for reason in decisions(world) if "CreateFleet" in reason}
    assert told.endswith(f"trying again every minute: {FORBIDDEN}")
    world.live(controller, 120)
    assert sorted(world.working()) == ["sim.0.0", "sim.1.1"]
    assert decisions(world)[-1] == "2 of 2 nodes are held"


def test_a_node_on_its_way_out_is_not_cut_off_by_a_run_that_fails(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.provider.fail_next("launch", FORBIDDEN, 100)
    world.provider.interrupt("sim.0.0", 60.0)
    controller = world.live(controller, 50)
    assert world.provider.alive == ["sim.0.0"]
    assert read_verdict(folder_store, "sim", 0) is None
    world.live(controller, FORBIDDEN_SECONDS + 20)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (RunState.FAILED, str(FORBIDDEN))


def test_what_has_long_been_forbidden_is_not_waited_for_again_once_the_last_node_is_lost(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 2}))
    controller = world.live(world.controller(), 10)
    world.provider.fail_next("launch", FORBIDDEN, 100)
    world.provider.interrupt("sim.1.0", None)
    controller = world.live(controller, FORBIDDEN_SECONDS + 20)
    assert read_verdict(folder_store, "sim", 0) is None
    world.provider.interrupt("sim.0.0", None)
    world.live(controller, 10)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (RunState.FAILED, str(FORBIDDEN))


def test_a_release_that_was_forbidden_is_no_trouble_once_nothing_is_to_be_released(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    world.provider.fail_next("terminate", NotAuthorised("ec2:TerminateInstances is missing"), 1)
    world.provider.capacity = 1
    controller = world.live(controller, 65)
    assert "TerminateInstances" in decisions(world)[-1]
    world.provider.end("sim.0.0", "by hand")
    controller = world.live(controller, 120)
    assert read_verdict(folder_store, "sim", 0) is None, "it says nothing about whether nodes can be had"
    assert world.working() == ["sim.0.1"]
    assert decisions(world)[-1] == "1 of 1 nodes are held"


def test_expired_credentials_are_waited_for_and_told_once(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 2}))
    controller = world.live(world.controller(), 10)
    expired = CredentialsExpired("log in again (`aws sso login`); it is noticed by itself")
    world.provider.fail_next("list", expired, 10)
    world.provider.fail_next("launch", expired, 6)
    controller = world.live(controller, 5)
    world.provider.interrupt("sim.1.0", None)
    controller = world.live(controller, 120)
    assert world.working() == ["sim.0.0"]
    assert sum("log in again" in reason for reason in decisions(world)) == 1
    world.live(controller, 120)
    assert sorted(world.working()) == ["sim.0.0", "sim.1.1"]
    assert read_verdict(folder_store, "sim", 0) is None


def test_a_store_that_wants_a_login_is_waited_for_and_told_once(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    listed = type(folder_store).list
    answers = iter(range(5))

    def list_for_some_time(store: Store, prefix: str = "") -> Any:
        if next(answers, None) is not None:
            raise StoreCredentialsExpired("log in again")
        return listed(store, prefix)

    monkeypatch.setattr(type(folder_store), "list", list_for_some_time)
    pauses = [controller.one_pass() for _ in range(6)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert capsys.readouterr().out.count("StoreCredentialsExpired, trying again: log in again") == 1
    assert decisions(world)[-1].startswith("went on after 0 s without the store: log in again")
    assert world.provider.alive == ["sim.0.0"]


def test_throttling_backs_off_and_is_told_once(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.fail_next("launch", Throttled("slow down"), 6)
    world.live(world.controller(), 30)
    assert launches(world) == 5, "1, 2, 4, 8, 16 s between"
    assert sum("Throttled" in reason for reason in decisions(world)) == 1
    assert world.intent("sim.0.0").attempt == 0


def test_a_provider_that_does_not_answer_keeps_no_limit_from_being_kept(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}, limits={"max_duration": "100s"}))
    controller = world.live(world.controller(), 10)
    world.provider.fail_next("list", Throttled("slow down"), 1000)
    world.live(controller, 90)
    assert world.record().stop is not None


def test_what_may_not_be_cleared_up_is_said_and_left(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    request_stop(folder_store, "sim", "enough", world.clock)
    world.provider.fail_next("close", NotAuthorised("ec2:DeleteLaunchTemplate is missing"), 9)
    world.live(controller, 30)
    assert world.provider.calls.count(("close", "sim")) == 1
    assert decisions(world)[-1] == "not everything could be cleared up: ec2:DeleteLaunchTemplate is missing"


def test_a_release_that_fails_is_repeated_until_it_is_done(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    world.provider.fail_next("terminate", Throttled("slow down"), 3)
    world.live(controller, 90)
    assert world.provider.alive == ["sim.0.1"]
