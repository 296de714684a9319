"""A run that is resumed while its controller still works: nothing is bought with the old provider section."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra import layout
from starling.infra.clock import FakeClock
from starling.infra.errors import NotAuthorised, ProviderUnavailable
from starling.infra.providers.base import Machine
from starling.infra.providers.fake import FakeProvider
from starling.infra.records import RunState
from starling.infra.store import Store
from starling.orchestrator import controller as controlling
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.runs import create_run, request_stop, resume_run
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec


def test_a_controller_ends_with_its_incarnation(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    old = world.live(world.controller(), 10)
    request_stop(folder_store, "sim", "pause", world.clock)
    world.live_until(old, lambda: read_verdict(folder_store, "sim", 0) is not None, at_most=60)
    resume_run(folder_store, "sim", [], world.clock)
    before = list(world.provider.calls)
    assert old.one_pass() is None
    assert world.provider.calls == before, "it must neither buy nor release anything for the next one"
    world.live(world.controller(), 10)
    assert world.working() == ["sim.0.1"]


class ResumedMeanwhile(FakeProvider):
    """Its run is stopped, and then resumed while the controller of the first incarnation still works."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        super().__init__(clock)
        self._store = store

    def list(self, run: str | None = None) -> list[Machine]:
        if read_verdict(self._store, "mine", 0) is None:
            request_stop(self._store, "mine", "pause", self._clock)
        elif resume_run(self._store, "mine", ["provider.price_per_hour=7"], self._clock).incarnation == 1:
            request_stop(self._store, "mine", "enough", self._clock)
        return super().list(run)


def test_it_signs_on_again_with_the_next_ones_provider(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("STARLING_HOME", str(tmp_path / "home"))
    clock, sections = FakeClock(), []

    def provider_for(section: dict[str, Any], _: str) -> FakeProvider:
        sections.append(section)
        return ResumedMeanwhile(folder_store, clock) if len(sections) == 1 else FakeProvider(clock)

    monkeypatch.setattr(controlling, "provider_for", provider_for)
    monkeypatch.setattr(controlling, "SystemClock", lambda: clock)
    create_run(folder_store, spec(), name="mine", clock=clock)
    assert controlling._control(folder_store, "mine") == 0
    assert [section["price_per_hour"] for section in sections] == [0.0, 7.0]
    verdict = read_verdict(folder_store, "mine", 1)
    assert verdict is not None
    assert verdict.state is RunState.STOPPED


def test_an_old_node_that_may_not_be_released_does_not_fail_the_next_incarnation(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.live(world.controller(), 10)
    world.hung.add("sim.0.0")
    world.provider.capacity = 1
    world.provider.fail_next("terminate", NotAuthorised("ec2:TerminateInstances is missing"), 2)
    _next_incarnation(world)
    controller = world.live(world.controller(), 30)
    assert world.provider.started == ["sim.0.0"]
    assert read_verdict(folder_store, "sim", 1) is None
    world.live(controller, 300)
    assert world.working() == ["sim.0.1"]


def test_what_an_earlier_incarnation_wanted_and_never_launched_is_taken_back(folder_store: Store) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.provider.fail_next("launch", ProviderUnavailable("no answer"), 3)
    world.live(world.controller(), 2)
    _next_incarnation(world)
    world.live(world.controller(), 30)
    assert world.intent("sim.0.0").terminate is not None
    assert world.intent("sim.0.0").gone_reason == "it was never launched"
    assert world.provider.started == ["sim.0.1"]


def _next_incarnation(world: SimulatedRun) -> None:
    """As if it had been resumed while a launch was under way."""
    world.store.put(layout.spec("sim", 1), world.store.get(layout.spec("sim", 0)).data)
    world.store.put(layout.run_record("sim"), world.record().but(incarnation=1).to_bytes())
