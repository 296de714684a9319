"""A shortage that takes spot machines back before their agents are up: waited out, whoever controls the run."""

from __future__ import annotations

import pytest

from starling.infra import layout
from starling.infra.records import NodeEnd, NodeState, NodeStatus
from starling.infra.store import Store
from starling.orchestrator.controller import Controller
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.setbacks import QUICK_LIMIT
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec

WORDS = "the machine was shut down while it booted"
NODES = 6


@pytest.fixture
def world(folder_store: Store) -> SimulatedRun:
    world = SimulatedRun(folder_store, spec(nodes={"max": 1}))
    world.hung = {f"sim.0.{generation}" for generation in range(NODES)}  # their boot ends before there is an agent
    return world


def shut_down(world: SimulatedRun, node: str, *, taken: bool) -> None:
    """The operating system ends the boot, and stage 0 says no more than that."""
    now = world.clock.now()
    status = NodeStatus(
        node=node,
        run="sim",
        state=NodeState.ENDED,
        at=now,
        booted_at=now - 1,
        address="127.0.0.1",
        instance_id=f"i-{node}",
        ended=NodeEnd(at=now, reason=WORDS),
    )
    world.store.put(layout.status(node), status.to_bytes())
    world.provider.end(node, "taken", taken=taken)


def live(world: SimulatedRun, controller: Controller, *, nodes: int, taken: bool) -> Controller:
    """Every machine is shut down as soon as it is there."""
    for _ in range(nodes):
        controller = world.live_until(controller, lambda: bool(world.provider.alive), at_most=120)
        shut_down(world, world.provider.alive[0], taken=taken)
    return controller


def test_the_run_waits_and_goes_on(world: SimulatedRun) -> None:
    controller = live(world, world.controller(), nodes=NODES, taken=True)
    began = world.clock.now()
    controller = world.live_until(controller, lambda: world.working() == [f"sim.0.{NODES}"], at_most=200)
    assert world.clock.now() - began > 60, "each time it waits longer for the next"
    assert read_verdict(world.store, "sim", 0) is None
    assert [world.intent(f"sim.0.{generation}").taken for generation in range(NODES + 1)] == [True] * NODES + [False]


def test_a_controller_that_comes_later_judges_alike_though_the_provider_has_forgotten(world: SimulatedRun) -> None:
    controller = live(world, world.controller(), nodes=NODES, taken=True)
    world.live(controller, 5)
    for generation in range(NODES):
        world.provider.forget(f"sim.0.{generation}")
    assert world.provider.machines == []
    world.live(world.controller(), 10)
    assert read_verdict(world.store, "sim", 0) is None


def test_machines_that_nobody_took_end_the_run(world: SimulatedRun) -> None:
    world.live(live(world, world.controller(), nodes=QUICK_LIMIT, taken=False), 5)
    verdict = read_verdict(world.store, "sim", 0)
    assert verdict is not None
    assert verdict.reason.endswith(f"the last because: {WORDS}")
