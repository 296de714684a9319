"""An emulated cloud whose prices a test sets itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.prices import PriceBook
from tests.support.account import lead_to

TYPES = {
    "g4dn.xlarge": {"on_demand": 0.526, "spot": 0.20},
    "g5.xlarge": {"on_demand": 1.006, "spot": 0.40},
    "g6.xlarge": {"on_demand": 0.8048, "spot": 0.30},
    "g5.12xlarge": {"on_demand": 5.672, "spot": 2.40},
    "c7i.xlarge": {"on_demand": 0.1785, "spot": 0.07},
    "c7i.2xlarge": {"on_demand": 0.357, "spot": 0.14},
    "m7i.xlarge": {"on_demand": 0.2016, "spot": 0.08},
}
ZONES = {"a": 1.0, "b": 1.2}
"""What makes a zone dearer; zones that are not here have no price."""
SCORES = {"a": 3, "b": 9}


@contextmanager
def priced_cloud(folder: Path) -> Iterator[EmulatedCloud]:
    """Serves `TYPES`; starting one takes a second, so tests share it and call `as_new` each."""
    with EmulatedCloud(prices=_price_file(folder)) as cloud:
        yield cloud


def as_new(cloud: EmulatedCloud, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No faults, no calls yet, the prices of the file; AWS clients of this process talk to it."""
    cloud.heal()
    cloud.calls.clear()
    cloud.prices = PriceBook(_price_file(folder))
    lead_to(cloud, monkeypatch)


def _price_file(folder: Path) -> Path:
    file = folder / "prices.json"
    file.write_text(json.dumps({"types": TYPES, "zones": ZONES, "scores": SCORES}))
    return file
