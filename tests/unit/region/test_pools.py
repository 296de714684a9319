"""Room and quotas of the emulated cloud, and the order in which a fleet takes what there is."""

from __future__ import annotations

import pytest

from starling.infra.records import Market
from starling.infra.region.fleets import Candidate, in_order
from starling.infra.region.pools import Capacity, Pool, Quotas, quota_code


def pool(instance_type: str = "g5.xlarge", zone: str = "us-east-1a", market: Market = Market.SPOT) -> Pool:
    return Pool(instance_type=instance_type, zone=zone, market=market)


def test_capacity_is_for_each_pool_and_the_newest_word_counts() -> None:
    capacity = Capacity()
    assert capacity.room(pool(), []) is None
    capacity.set("g5.*", "*", "spot", 2)
    assert capacity.room(pool(), [pool(), pool(zone="us-east-1b")]) == 1
    assert capacity.room(pool("g4dn.xlarge"), []) is None
    assert capacity.room(pool(market=Market.ON_DEMAND), []) is None
    capacity.set("*", "us-east-1a", "*", 0, code="UnfulfillableCapacity")
    refusal = capacity.refusal(pool(), [])
    assert refusal is not None
    assert refusal.code == "UnfulfillableCapacity"
    assert capacity.room(pool(zone="us-east-1b"), []) == 2
    capacity.set("*", "*", "*", None)
    assert capacity.refusal(pool(), []) is None


def test_more_may_run_than_there_is_room_for() -> None:
    capacity = Capacity()
    capacity.set("*", "*", "*", 1)
    assert capacity.room(pool(), [pool(), pool()]) == 0


@pytest.mark.parametrize(
    ("instance_type", "spot", "on_demand"),
    [
        ("g5.xlarge", "L-3819A6DF", "L-DB2E81BA"),
        ("g4dn.xlarge", "L-3819A6DF", "L-DB2E81BA"),
        ("vt1.3xlarge", "L-3819A6DF", "L-DB2E81BA"),
        ("p3.2xlarge", "L-7212CCBC", "L-417A185B"),
        ("p4d.24xlarge", "L-7212CCBC", "L-417A185B"),
        ("p5.4xlarge", "L-C4BD4855", "L-417A185B"),
        ("p5en.48xlarge", "L-C4BD4855", "L-417A185B"),
        ("p6-b200.48xlarge", None, "L-417A185B"),
        ("c7i.xlarge", "L-34B43A08", "L-1216C47A"),
        ("t3.large", "L-34B43A08", "L-1216C47A"),
        ("inf2.xlarge", None, None),
        ("trn1.2xlarge", None, None),
    ],
)
def test_each_family_counts_against_its_quota(instance_type: str, spot: str | None, on_demand: str | None) -> None:
    assert quota_code(pool(instance_type)) == spot
    assert quota_code(pool(instance_type, market=Market.ON_DEMAND)) == on_demand


def test_quotas_count_vcpus_of_one_kind_in_all_zones() -> None:
    quotas = Quotas()
    quotas.set("L-3819A6DF", 8)
    four = {"g5.xlarge": 4, "g4dn.xlarge": 4, "c7i.xlarge": 4}.__getitem__
    assert quotas.refusal(pool(), [pool(zone="us-east-1b")], four) is None
    full = [pool(zone="us-east-1b"), pool("g4dn.xlarge")]
    refusal = quotas.refusal(pool(), full, four)
    assert refusal is not None
    assert refusal.code == "MaxSpotInstanceCountExceeded"
    assert quotas.refusal(pool("c7i.xlarge"), full, four) is None
    assert quotas.refusal(pool(market=Market.ON_DEMAND), full, four) is None
    quotas.set("L-DB2E81BA", 0)
    refusal = quotas.refusal(pool(market=Market.ON_DEMAND), [], four)
    assert refusal is not None
    assert refusal.code == "VcpuLimitExceeded"


def candidate(name: str, price: float, room: float = float("inf"), priority: int | None = None) -> Candidate:
    override = {} if priority is None else {"Priority": priority}
    return Candidate(template={}, override=override, data={}, pool=pool(name), price=price, room=room)


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("lowest-price", ["dry", "cheap", "mid", "dear"]),
        ("price-capacity-optimized", ["cheap", "mid", "dear", "dry"]),
        ("capacity-optimized", ["dear", "mid", "cheap", "dry"]),
        ("prioritized", ["mid", "dry", "cheap", "dear"]),
    ],
)
def test_strategies(strategy: str, order: list[str]) -> None:
    candidates = [
        candidate("dear", 3, room=9),
        candidate("cheap", 1, room=2),
        candidate("mid", 2, room=5, priority=1),
        candidate("dry", 0.5, room=0),
    ]
    assert [each.pool.instance_type for each in in_order(candidates, strategy)] == order
