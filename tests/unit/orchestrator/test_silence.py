"""What is taken for a node's silence, and what is not: a slow provider, a store that cannot be written."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import StoreUnavailable
from starling.infra.store import Store
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec


def slow(world: SimulatedRun, monkeypatch: pytest.MonkeyPatch, operation: str, seconds: float) -> None:
    """The provider takes so long to answer, while agents go on as ever."""
    answer = getattr(world.provider, operation)

    def late(*args: Any, **kwargs: Any) -> Any:
        for _ in range(int(seconds)):
            world.clock.advance(1)
            world.agents_act()
        return answer(*args, **kwargs)

    monkeypatch.setattr(world.provider, operation, late)


@pytest.mark.parametrize("operation", ["list", "offers"])
def test_a_slow_provider_makes_no_node_silent(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 2}))
    controller = world.live(world.controller(), 10)
    world.provider.interrupt("sim.1.0", None)  # so that offers are asked for
    world.clock.advance(world.provider.pace.offers)
    world.agents_act()
    slow(world, monkeypatch, operation, 90)
    world.live(controller, 300)
    assert world.intent("sim.0.0").terminate is None
    assert "sim.0.0" in world.provider.alive


def test_a_slow_provider_makes_no_trainer_idle_when_others_are_unfit(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 2}))
    controller = world.live(world.controller(), 10)
    world.unfit = {f"sim.1.{generation}" for generation in range(1, 99)}
    world.provider.interrupt("sim.1.0", None)
    world.provider.pace = type(world.provider.pace)(offers=0.0)
    slow(world, monkeypatch, "offers", 30)
    world.live(controller, 400)
    assert len([node for node in world.provider.started if node.startswith("sim.1.")]) > 3
    assert world.working() == ["sim.0.0"]


def test_a_hung_node_is_found_out_all_the_same(folder_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    slow(world, monkeypatch, "list", 90)
    world.hung.add("sim.0.0")
    world.live(controller, 400)
    word = world.intent("sim.0.0").terminate
    assert word is not None
    assert "silent" in word.reason


def test_silence_while_the_store_could_not_be_written_means_nothing(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    controller = world.live(world.controller(), 10)
    world.hung.add("sim.0.0")  # its agent cannot write either

    def refuse(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("read only")

    with monkeypatch.context() as away:
        for change in ("create", "replace", "put"):
            away.setattr(type(folder_store), change, refuse)
        for _ in range(120):
            controller.one_pass()
            world.clock.advance(1.0)
    controller.one_pass()  # sooner than the agent writes again
    assert world.intent("sim.0.0").terminate is None
    world.hung.clear()
    world.live(controller, 20)
    assert world.provider.alive == ["sim.0.0"]
