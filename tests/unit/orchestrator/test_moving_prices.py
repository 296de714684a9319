"""What a spot machine costs moves while it runs: bills, budget and authorised times follow."""

from __future__ import annotations

import pytest

from starling.infra.records import Offer, RunState
from starling.infra.store import Store
from starling.orchestrator.ledger import cost
from starling.orchestrator.observe import PRICES_SECONDS
from starling.orchestrator.reading import RunReader, read_verdict
from tests.support.offers import on_demand, spot
from tests.support.simulated_run import SimulatedRun
from tests.support.specs import spec


def spent(world: SimulatedRun) -> float:
    return cost(RunReader(world.store, world.run).facts(world.provider.machines).nodes, world.clock.now())


def world_of(store: Store, offer: Offer, **limits: float) -> SimulatedRun:
    return SimulatedRun(store, spec(nodes={"max": 1, "market": offer.market.value}, limits=limits), offers=[offer])


def test_a_bill_follows_the_market(folder_store: Store) -> None:
    world = world_of(folder_store, spot(price=0.4))
    controller = world.live(world.controller(), 10)
    world.provider.sell(spot(price=0.8))
    world.live(controller, 2 * PRICES_SECONDS)
    (change,) = world.intent("sim.0.0").prices
    assert change.price_per_hour == 0.8
    assert change.at - world.clock.now() == pytest.approx(-PRICES_SECONDS, abs=20), "found out within the hour"
    assert spent(world) == pytest.approx(0.4 + 0.8, rel=0.02)


def test_prices_are_looked_at_once_an_hour_and_small_moves_are_not_written_down(folder_store: Store) -> None:
    world = world_of(folder_store, spot(price=0.4))
    controller = world.live(world.controller(), 10)
    before = world.provider.asked["offers"]
    world.provider.sell(spot(price=0.401))
    world.live(controller, 3 * PRICES_SECONDS)
    assert world.provider.asked["offers"] - before in (2, 3)
    assert world.intent("sim.0.0").prices == ()


def test_what_is_bought_at_the_full_price_keeps_it(folder_store: Store) -> None:
    world = world_of(folder_store, on_demand(price=1.0))
    controller = world.live(world.controller(), 10)
    before = world.provider.asked["offers"]
    world.live(controller, 2 * PRICES_SECONDS)
    assert world.provider.asked["offers"] == before


def test_the_budget_holds_when_prices_rise(folder_store: Store) -> None:
    world = world_of(folder_store, spot(price=0.4), budget=2.0)
    controller = world.live(world.controller(), 10)
    world.provider.sell(spot(price=1.0))
    world.live(controller, 4 * PRICES_SECONDS)
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert verdict.state is RunState.STOPPED
    assert "budget" in verdict.reason
    assert 1.8 < spent(world) <= 2.0


def test_the_whole_budget_can_be_spent_at_a_low_price(folder_store: Store) -> None:
    """Nodes are authorised for what they may come to cost, and again and again for what was left over."""
    world = world_of(folder_store, spot(price=0.4), budget=1.0)
    word = world.live(world.controller(), 10)
    until = world.intent("sim.0.0").authorised_until
    assert until == pytest.approx(1_000_000 + 3600, abs=10), "as if it were $1 an hour"
    world.live(word, 4 * PRICES_SECONDS)
    assert world.provider.started == ["sim.0.0"]
    verdict = read_verdict(folder_store, "sim", 0)
    assert verdict is not None
    assert "budget" in verdict.reason, "stopped all together, not left one by one"
    assert 0.9 < spent(world) <= 1.0
