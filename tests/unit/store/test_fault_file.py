"""Rules of trouble reach stores in processes that run already."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.errors import ObjectCorrupt, StoreUnavailable, UsageError
from starling.infra.store import open_store
from starling.infra.store.fault_file import FAULTS, write_rules
from starling.infra.store.faults import Fault, FaultRule


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rules.json"
    monkeypatch.setenv(FAULTS, str(path))
    return path


def test_an_open_store_heeds_the_file_as_it_changes(rules: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("k", b"1")
    write_rules(rules, [FaultRule(fault=Fault.UNAVAILABLE, operation="get", times=None)])
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.get("k")
    store.put("k", b"2")
    write_rules(rules, [FaultRule(fault=Fault.UNAVAILABLE, operation="put")])
    assert store.get("k").data == b"2"
    with pytest.raises(StoreUnavailable):
        store.put("k", b"3")
    rules.unlink()
    store.put("k", b"3")
    assert store.uri == str(tmp_path / "store"), "trouble is no part of a store's identity"


def test_a_truncated_download_is_found_out(rules: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("k", b"1")
    write_rules(rules, [FaultRule(fault=Fault.TRUNCATED)])
    with pytest.raises(ObjectCorrupt, match="truncated"):
        store.download("k", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_file_that_holds_no_rules_is_named(rules: Path, tmp_path: Path) -> None:
    rules.write_text('[{"fault": "explode"}]')
    with pytest.raises(UsageError, match=rf"{FAULTS}: {rules}"):
        open_store(str(tmp_path / "store")).list()


def test_nothing_is_rehearsed_without_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAULTS, raising=False)
    assert type(open_store(str(tmp_path))).__name__ == "FolderStore"
