"""What a rehearsal changes in a spec, and what it makes of what came out."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.records import Event, EventKind, Market, Offer
from starling.orchestrator.ledger import Bill
from starling.orchestrator.loading import load_spec
from starling.orchestrator.rehearsal import (
    Outcome,
    has_trained,
    in_region,
    lines,
    made_smaller,
    out_of_reach,
    undisturbed,
)
from starling.orchestrator.spec import Spec

SPEC = Path(__file__).parents[3] / "configs" / "retinopathy-aws.yaml"
DONE = {"state": "done", "weights_sha256": "w", "state_sha256": "s"}


def with_data(dataset: str, source: str | None = None) -> Spec:
    data = {"dataset": dataset, "source": source}
    return Spec.model_validate({**load_spec(SPEC, []).resolved(), "data": data})


def test_a_spec_says_what_is_smaller_in_its_rehearsal() -> None:
    spec = load_spec(SPEC, [])
    there = load_spec(SPEC, [*made_smaller(spec), "training.epochs=3"])
    assert there.data is not None
    assert there.data.source == "rendered-fundus"
    assert there.training is not None
    assert (there.training.precision, there.training.epochs) == ("fp32", 3)
    assert there.nodes.on_demand_after == 120
    assert there.provider == spec.provider.model_copy(update={"same_zone": False})


def test_runs_do_not_depend_on_what_is_for_rehearsals() -> None:
    spec = load_spec(SPEC, [])
    assert spec.rehearsal
    assert spec.resolved() == load_spec(SPEC, ["rehearsal={}"]).resolved()


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (with_data("eyepacs"), "there is no dataset eyepacs in it"),
        (with_data("s3://bucket/data/eyepacs"), "there is no s3://bucket/data/eyepacs"),
        (with_data("eyepacs", "s3://bucket/photographs"), "there is no s3://bucket/photographs"),
        (with_data("eyepacs", "photographs"), None),
        (with_data("/data/eyepacs"), None),
    ],
)
def test_data_that_a_rehearsal_cannot_have_is_known_beforehand(spec: Spec, why: str | None) -> None:
    problem = out_of_reach(spec)
    assert problem is None if why is None else why in (problem or "")


def test_the_spec_of_the_region_is_the_users_with_time_made_shorter() -> None:
    spec = load_spec(SPEC, [])
    there = load_spec(SPEC, in_region(spec, 6))
    assert there.nodes.on_demand_after == 150
    assert there.limits.budget == pytest.approx(100 / 6)
    assert there.limits.max_duration == 4 * 3600
    assert there.provider == spec.provider
    assert there.training is not None
    assert there.training.device == "cpu"
    assert there.training.model_copy(update={"device": "auto"}) == spec.training


def test_the_undisturbed_spec_trains_the_same_on_one_local_node() -> None:
    spec = load_spec(SPEC, [])
    alone = load_spec(SPEC, undisturbed(spec))
    assert alone.provider.name == "local"
    assert (alone.nodes.min, alone.nodes.max, alone.nodes.gpus_per_node) == (1, 1, 0)
    assert alone.limits.budget is None
    assert alone.training is not None
    assert alone.training.model_copy(update={"device": "auto"}) == spec.training


def bill(market: Market, price: float, full: float | None) -> Bill:
    offer = Offer(provider="aws", instance_type="g5.xlarge", zone="us-east-1a", market=market, price_per_hour=price)
    on_demand = None if full is None else full / 60
    return Bill(node="r.0.0", offer=offer, start=0, end=60, seconds=60, cost=price / 60, on_demand_cost=on_demand)


def outcome(**changes: object) -> Outcome:
    ledger = lines([bill(Market.SPOT, 0.4, 1.0), bill(Market.ON_DEMAND, 1.0, 1.0), bill(Market.SPOT, 0.5, None)], 6)
    values = {"rehearsed": DONE, "undisturbed": DONE, "ledger": ledger, "interruptions": {"notice": 1}, "left": ()}
    return Outcome(**{**values, **changes})  # type: ignore[arg-type]


def test_a_bill_counts_in_region_time() -> None:
    there = outcome()
    assert [line.hours for line in there.ledger] == pytest.approx([0.1, 0.1, 0.1])
    assert there.cost == pytest.approx(0.04 + 0.1 + 0.05)
    assert there.on_demand_cost == pytest.approx(0.1 + 0.1 + 0.05)


def test_all_promises_hold() -> None:
    assert all(outcome().promises.values())
    assert len(outcome().promises) == 4


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"rehearsed": {**DONE, "state": "failed"}}, "the run is done"),
        ({"rehearsed": {**DONE, "weights_sha256": "x"}}, "weights"),
        ({"rehearsed": {**DONE, "state_sha256": "x"}}, "optimizer"),
        ({"rehearsed": {**DONE, "weights_sha256": None}, "undisturbed": {**DONE, "weights_sha256": None}}, "weights"),
        ({"left": [{"kind": "instance"}]}, "`starling gc` finds nothing"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, object], broken: str) -> None:
    promises = outcome(**changes).promises
    assert [what.startswith(broken) for what, kept in promises.items() if not kept] == [True]


def test_what_is_not_exact_is_not_compared() -> None:
    assert list(outcome(undisturbed=None).promises) == ["the run is done", "`starling gc` finds nothing"]


def test_training_begins_with_the_first_step() -> None:
    begun = Event(at=1, kind=EventKind.ROUND, subject="r", reason="round 0")
    assert not has_trained([begun])
    assert has_trained([begun, Event(at=2, kind=EventKind.FIRST_STEP, subject="r", reason="step")])
