"""The plan: useful world sizes, steps, price, warnings."""

from __future__ import annotations

import math

import pytest

from starling.infra.records import Market, Offer
from starling.orchestrator.plan import Measured, make_plan, useful_worlds
from tests.support.offers import spot
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


def test_an_exact_run_in_parts_has_the_one_world_size_it_was_asked_for() -> None:
    nodes = {"min": 2, "max": 2}
    training = {"epochs": 2, "global_batch": 64, "optimizer": {"name": "sgd", "lr": 0.1}, "strategy": "fsdp"}
    assert [world.nodes for world in make_plan(spec(nodes=nodes, training=training), 1000, [offer(0)]).useful] == [2]
    training["exact"] = False
    assert len(make_plan(spec(nodes=nodes, training=training), 1000, [offer(0)]).useful) > 1


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


SPOT = (spot(zone="a"), spot("g5.2xlarge", "b", 0.6, on_demand_price=1.2))
T4 = spot("g4dn.xlarge", "a", 0.5, device="T4", on_demand_price=0.6)
AWS = {"provider": {"name": "aws"}, "limits": {"budget": 9}}


def test_the_best_candidates_are_shown_with_what_they_save() -> None:
    plan = make_plan(spec(**AWS), 1000, [*SPOT, *(spot(f"g5.{n}xlarge", "c", 0.7) for n in range(4, 24))])
    assert plan.offer == SPOT[0]
    assert plan.candidates[:2] == SPOT
    assert (len(plan.candidates), plan.candidate_count) == (5, 22)
    assert plan.price_per_hour_max == pytest.approx(1.2)
    assert plan.on_demand_per_hour_max == pytest.approx(3.0)
    assert plan.to_json()["candidates"][0]["instance_type"] == "g5.xlarge"


def test_an_exact_run_is_planned_on_one_kind_of_device() -> None:
    plan = make_plan(spec(**AWS), 1000, [SPOT[0], T4, SPOT[1]])
    assert (plan.device, plan.candidates) == ("A10G", SPOT)
    training = {"epochs": 2, "global_batch": 64, "optimizer": {"name": "sgd", "lr": 0.1}, "exact": False}
    plan = make_plan(spec(**AWS, training=training), 1000, [SPOT[0], T4, SPOT[1]])
    assert (plan.device, plan.candidate_count) == (None, 3)


@pytest.mark.parametrize(
    ("sections", "offers", "measured", "warning"),
    [
        (
            {"limits": {}, "nodes": {"max": 2, "on_demand_after": 60}},
            SPOT,
            None,
            "whatever it takes, and nodes.on_demand_after may buy all 2 on demand ($2.00 an hour)",
        ),
        ({}, SPOT[:1], None, "only g5.xlarge in a fits"),
        ({}, (spot(price=1.5), SPOT[1]), None, "g5.xlarge costs no less on spot than on demand now"),
        ({}, SPOT, Measured(step_seconds=100.0, save_seconds=30.0), "take 130 s, longer than the 120 s"),
    ],
)
def test_warnings_of_the_market(
    sections: dict[str, object], offers: tuple[Offer, ...], measured: Measured | None, warning: str
) -> None:
    plan = make_plan(spec(**{**AWS, **sections}), 1000, offers, measured)
    assert any(warning in text for text in plan.warnings), plan.warnings


def test_a_step_that_fits_into_a_notice_is_no_trouble() -> None:
    measured = Measured(step_seconds=60.0, save_seconds=30.0)
    assert make_plan(spec(**AWS), 1000, SPOT, measured).warnings == ()


def test_nothing_to_warn_of() -> None:
    assert make_plan(spec(), 1000, [offer(0)]).warnings == ()


def test_no_offer_is_said() -> None:
    plan = make_plan(spec(), 1000, [])
    assert plan.offer is None
    assert any("offers nothing" in text for text in plan.warnings)
