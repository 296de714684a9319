"""The plan: useful world sizes, steps, price, warnings."""

from __future__ import annotations

import math

import pytest

from starling.infra.records import Market, Offer
from starling.orchestrator.plan import make_plan, useful_worlds
from tests.support.specs import spec


def offer(price: float) -> Offer:
    return Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=price)


@pytest.mark.parametrize(
    ("shards", "ranks_per_node", "nodes"),
    [(8, 1, [1, 2, 3, 4, 8]), (16, 1, [1, 2, 3, 4, 6, 8, 16]), (8, 4, [1, 2]), (1, 1, [1]), (8, 3, [1, 2])],
)  # fmt: skip
def test_useful_world_sizes(shards: int, ranks_per_node: int, nodes: list[int]) -> None:
    assert [world.nodes for world in useful_worlds(shards, ranks_per_node)] == nodes


def test_every_useful_size_beats_all_smaller_ones() -> None:
    useful = {world.nodes: world.passes for world in useful_worlds(64, 1)}
    for nodes in range(1, 65):
        better = all(math.ceil(64 / nodes) < math.ceil(64 / fewer) for fewer in range(1, nodes))
        assert (nodes in useful) is better


def test_steps_round_up_and_multiply() -> None:
    plan = make_plan(spec(), 1438, [offer(0)])
    assert (plan.steps_per_epoch, plan.total_steps) == (23, 46)


def test_unknown_data_gives_no_steps() -> None:
    plan = make_plan(spec(), None, [offer(0)])
    assert (plan.steps_per_epoch, plan.total_steps) == (None, None)


def test_price_and_what_the_limits_allow() -> None:
    plan = make_plan(spec(limits={"budget": 12, "max_duration": "4h"}), 1000, [offer(2.0), offer(1.0)])
    assert (plan.price_per_hour_min, plan.price_per_hour_max) == (2.0, 6.0)
    assert (plan.hours_by_budget, plan.most_hours, plan.most_cost) == (2.0, 2.0, 12.0)


@pytest.mark.parametrize(
    ("sections", "size", "price", "warning"),
    [
        ({"nodes": {"max": 5}}, 1000, 0, "nodes.max: 5 nodes are no faster than 4"),
        ({}, 10, 0, "more than the dataset's 10 samples"),
        ({"limits": {"budget": 1}}, 1000, 0, "limits.budget has no effect"),
        ({}, 1000, 1, "limits.budget: none is set"),
        ({"checkpoint": {"every_minutes": None}}, 1000, 0, "up to one epoch of work"),
    ],
)
def test_warnings(sections: dict[str, object], size: int, price: float, warning: str) -> None:
    assert any(warning in text for text in make_plan(spec(**sections), size, [offer(price)]).warnings)


def test_nothing_to_warn_of() -> None:
    assert make_plan(spec(), 1000, [offer(0)]).warnings == ()


def test_no_offer_is_said() -> None:
    plan = make_plan(spec(), 1000, [])
    assert plan.offer is None
    assert any("offers nothing" in text for text in plan.warnings)
