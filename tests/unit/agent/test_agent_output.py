from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from starling.infra import layout
from starling.infra.agent import output
from starling.infra.agent.output import LogBuffer, LogShipper, MetricsShipper
from starling.infra.clock import FakeClock
from starling.infra.errors import StoreUnavailable
from starling.infra.store import Store, open_store


class FlakyStore:
    """A real store whose writes fail while `away`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False

    def put(self, key: str, data: bytes) -> str:
        if self.away:
            raise StoreUnavailable("away")
        return self._store.put(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path) -> FlakyStore:
    return FlakyStore(open_store(str(tmp_path / "store")))


def text_below(store: FlakyStore, prefix: str) -> bytes:
    return b"".join(store.get(info.key).data for info in store.list(prefix))


@pytest.fixture
def ship(store: FlakyStore, tmp_path: Path) -> tuple[LogBuffer, Callable[[], None]]:
    buffer = LogBuffer(tmp_path / "node.log")
    return buffer, LogShipper(store, "r", "r.0.0", buffer).ship


def test_output_arrives_in_order_and_whole_after_an_outage(
    store: FlakyStore, ship: tuple[LogBuffer, Callable[[], None]]
) -> None:
    buffer, ship_now = ship
    buffer.write(b"one\n")
    ship_now()
    store.away = True
    for line in (b"two\n", b"three\n"):
        buffer.write(line)
        with pytest.raises(StoreUnavailable):
            ship_now()
    store.away = False
    ship_now()
    assert text_below(store, layout.logs("r", "r.0.0")) == b"one\ntwo\nthree\n"
    assert next(info.key.rsplit("/", 1)[1] for info in store.list(layout.logs("r"))) == "00000000.log"


def test_nothing_to_ship_makes_no_object(store: FlakyStore, ship: tuple[LogBuffer, Callable[[], None]]) -> None:
    ship[1]()
    assert list(store.list()) == []


def test_a_second_agent_on_the_node_adds_and_overwrites_nothing(store: FlakyStore, tmp_path: Path) -> None:
    for line in (b"first agent\n", b"second agent\n"):
        buffer = LogBuffer(tmp_path / "node.log")
        buffer.write(line)
        LogShipper(store, "r", "r.0.0", buffer).ship()
    assert text_below(store, layout.logs("r", "r.0.0")) == b"first agent\nsecond agent\n"


def test_what_waits_and_what_lies_on_disk_is_bounded(
    monkeypatch: pytest.MonkeyPatch, store: FlakyStore, ship: tuple[LogBuffer, Callable[[], None]], tmp_path: Path
) -> None:
    monkeypatch.setattr(output, "LOCAL_BYTES", 1000)
    monkeypatch.setattr(output, "BUFFER_BYTES", 500)
    buffer, ship_now = ship
    for number in range(1000):
        buffer.write(b"line %04d\n" % number)
    assert sum(path.stat().st_size for path in tmp_path.glob("node.log*")) <= 2000
    ship_now()
    shipped = text_below(store, layout.logs("r")).decode()
    assert shipped.startswith("[9500 bytes of output were dropped")
    assert shipped.endswith("line 0999\n")


def test_the_agents_own_lines_are_shipped_too(store: FlakyStore, ship: tuple[LogBuffer, Callable[[], None]]) -> None:
    logger = logging.Logger("agent")
    logger.addHandler(ship[0])
    logger.warning("a sick GPU")
    ship[1]()
    assert b"WARNING agent: a sick GPU\n" in text_below(store, layout.logs("r"))


def test_metrics_are_shipped_once_in_whole_lines(store: FlakyStore, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    shipper = MetricsShipper(store, "r", "r.0.0", path, clock := FakeClock())
    shipper.ship()
    assert list(store.list()) == []
    path.write_bytes(b'{"step": 1}\n{"st')
    shipper.ship()
    shipper.ship()
    assert text_below(store, layout.metrics("r")) == b'{"step": 1}\n'
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    clock.advance(2)
    store.away = True
    with pytest.raises(StoreUnavailable):
        shipper.ship()
    store.away = False
    shipper.ship()
    assert text_below(store, layout.metrics("r")) == b'{"step": 1}\n{"step": 2}\n'
