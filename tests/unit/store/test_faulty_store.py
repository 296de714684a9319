"""The store that misbehaves on purpose does so exactly as told, and otherwise not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.clock import FakeClock
from starling.infra.errors import ObjectExists, ObjectNotFound, StoreUnavailable
from starling.infra.store import Store
from starling.infra.store.faults import Fault, FaultRule, FaultyStore
from tests.contract.store_suite import StoreSuite


class TestWithoutRules(StoreSuite):
    """Nothing is lost on the way through."""

    process_rounds, thread_rounds, racing_processes, increments = 1, 1, 2, 1

    @pytest.fixture
    def store(self, folder_store: Store) -> Store:
        return FaultyStore(folder_store)

    def damage(self, store: Store, key: str) -> None:
        path = Path(store.uri) / key
        path.write_bytes(b"damaged" + path.read_bytes()[7:])


def test_unavailable_does_nothing(folder_store: Store) -> None:
    store = FaultyStore(folder_store, [FaultRule(fault=Fault.UNAVAILABLE, operation="put")])
    with pytest.raises(StoreUnavailable, match="put a/k: unavailable"):
        store.put("a/k", b"x")
    with pytest.raises(ObjectNotFound):
        store.get("a/k")
    store.put("a/k", b"x")
    assert store.get("a/k").data == b"x"
    assert store.hits == [("put", "a/k", Fault.UNAVAILABLE)]


def test_a_lost_answer_comes_after_the_deed(folder_store: Store) -> None:
    store = FaultyStore(folder_store, [FaultRule(fault=Fault.LOST_ANSWER, operation="create", key="runs/*/run.json")])
    store.create("runs/a/other", b"x")
    with pytest.raises(StoreUnavailable):
        store.create("runs/a/run.json", b"x")
    with pytest.raises(ObjectExists):
        store.create("runs/a/run.json", b"x")


def test_slow_takes_its_time_and_works(folder_store: Store) -> None:
    clock = FakeClock()
    store = FaultyStore(folder_store, [FaultRule(fault=Fault.SLOW, seconds=7)], clock=clock)
    before = clock.now()
    store.put("k", b"x")
    assert clock.now() - before == 7
    assert store.get("k").data == b"x"


def test_a_torn_upload_leaves_half(folder_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    store = FaultyStore(folder_store, [FaultRule(fault=Fault.TORN, operation="upload")])
    with pytest.raises(StoreUnavailable, match="torn"):
        store.upload(file, "k")
    assert store.get("k").data == b"01234"
    store.upload(file, "k")
    assert store.get("k").data == b"0123456789"


def test_rules_skip_count_and_can_be_added(folder_store: Store) -> None:
    store = FaultyStore(folder_store)
    store.add(FaultRule(fault=Fault.UNAVAILABLE, operation="put", skip=2, times=3))
    assert [_works(store, number) for number in range(8)] == [True, True, False, False, False, True, True, True]


def test_the_same_seed_gives_the_same_faults(folder_store: Store) -> None:
    rule = FaultRule(fault=Fault.UNAVAILABLE, times=None, probability=0.5)
    runs = []
    for seed in (1, 1, 2):
        store = FaultyStore(folder_store, [rule], seed=seed)
        runs.append([_works(store, number) for number in range(40)])
    assert runs[0] == runs[1] != runs[2]
    assert 5 < sum(runs[0]) < 35


def _works(store: Store, number: int) -> bool:
    try:
        store.put(f"k{number}", b"x")
    except StoreUnavailable:
        return False
    return True
