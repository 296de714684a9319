"""What people read about money: the plan's market, the ledger, the saving."""

from __future__ import annotations

from typing import Any

from starling.cli.result_text import cost_text
from starling.cli.showing import ledger_table
from starling.cli.starting import plan_text
from starling.orchestrator.plan import make_plan
from tests.support.offers import spot
from tests.support.specs import spec


def bill(cost: float, on_demand_cost: float | None) -> dict[str, Any]:
    saving = on_demand_cost - cost if on_demand_cost is not None else None
    return {"id": "r.0.0", "from": 0.0, "to": 60.0, "seconds": 60.0, "cost": cost} | {
        "on_demand_cost": on_demand_cost,
        "saving": saving,
    }


def test_the_saving_is_told_where_it_is_known() -> None:
    assert cost_text({"cost": 2.0, "on_demand_cost": 8.0, "saving": 6.0}) == "$2.00 ($8.00 on demand, 75% saved)"
    assert cost_text({"cost": 8.0, "on_demand_cost": 4.0, "saving": -4.0}) == "$8.00 ($4.00 on demand, 100% more)"
    assert cost_text({"cost": 2.0, "on_demand_cost": None, "saving": None}) == "$2.00"
    assert cost_text({"cost": 0.0, "on_demand_cost": 0.0, "saving": 0.0}) == "$0.00 ($0.00 on demand)"


def test_the_ledger_has_no_empty_columns() -> None:
    assert ledger_table([bill(2.0, None)]).splitlines()[0].split() == ["ledger", "from", "to", "ran", "cost"]
    told = ledger_table([bill(2.0, 8.0), bill(2.0, None), bill(3.0, 2.0)]).splitlines()
    assert told[0].endswith("cost   on demand  saved")
    assert told[1].endswith("$2.00  $8.00      $6.00")
    assert told[2].endswith("$2.00  -          -")
    assert told[3].endswith("$3.00  $2.00      -$1.00")


def test_the_plan_tells_what_nodes_may_be_bought_as() -> None:
    offers = [spot(zone="a"), spot("g5.2xlarge", "b", 0.6, on_demand_price=None)]
    lines = plan_text(make_plan(spec(provider={"name": "aws"}), 1000, offers)).splitlines()
    assert "nodes: 1 to 3; each g5.xlarge in a, spot, $0.4000 an hour; all of them A10G, so that the result" in lines[1]
    assert lines[2] == "price: $0.4000 to $1.20 an hour ($3.00 on demand, 60% saved)"
    shown = [line.split() for line in lines[4:7]]
    assert lines[4] == "may be bought as (2 in all):"
    assert shown[2] == ["g5.xlarge", "a", "spot", "$0.4000", "$1.00", "A10G"]
    assert lines[7].split() == ["g5.2xlarge", "b", "spot", "$0.6000", "-", "A10G"]
