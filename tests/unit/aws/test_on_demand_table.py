"""The table of on-demand prices that ships with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from starling.infra.providers.aws import on_demand_prices
from starling.infra.providers.aws.catalog import CPU_FAMILY
from starling.infra.providers.aws.on_demand_prices import TABLE_FILE, shipped_names, shipped_table

ROOT = Path(__file__).parents[3]


def test_the_table_says_when_and_where_its_prices_are_from() -> None:
    table = shipped_table()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", table.date)
    assert table.date in table.source
    assert all(0 < price < 500 for prices in table.regions.values() for price in prices.values())


def test_the_table_has_the_families_that_people_train_on() -> None:
    known = {name.partition(".")[0] for name in shipped_names()}
    assert {"g4dn", "g5", "g6", "g6e", "p3", "p4d", "p5"} <= known
    assert any(CPU_FAMILY.match(name) for name in shipped_names())


def test_sizes_of_a_plain_family_double_in_price() -> None:
    """A slip of the pen would show: these families' prices go by vCPUs alone."""
    prices = shipped_table().regions["us-east-1"]
    for name in [name for name in prices if CPU_FAMILY.match(name) and name.endswith(".2xlarge")]:
        family = name.partition(".")[0]
        assert abs(prices[name] - 2 * prices[f"{family}.xlarge"]) < 1e-4
        assert abs(prices[f"{family}.4xlarge"] - 2 * prices[name]) < 1e-4


def test_the_table_is_part_of_the_package() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["starling"]
    file = Path(on_demand_prices.__file__).with_name(TABLE_FILE)
    assert any(file in (ROOT / "starling").glob(pattern) for pattern in shipped)
