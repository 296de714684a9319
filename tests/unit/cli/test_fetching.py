"""`fetch` brings the newest snapshot that comes out whole, and touches nothing in the store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from starling.cli.fetching import fetch_verb
from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, StarlingError
from starling.infra.records import RunState, Verdict
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import Store
from starling.orchestrator.runs import create_run
from tests.support.snapshot_folder import Folder
from tests.support.specs import spec


@pytest.fixture
def snapshots(tmp_path: Path, folder_store: Store) -> list[Snapshot]:
    create_run(folder_store, spec(), name="r")
    folder = Folder(tmp_path / "out", folder_store)
    made = []
    for content in ("one", "two", "three"):
        folder.write("a", content)
        made.append(folder.commit().snapshot)
    return made


def damage(store: Store, snapshot: Snapshot) -> None:
    (file,) = snapshot.files
    store.put(layout.snapshot_file("r", file.sha256), b"x" * file.size)


def fetch(store: Store, folder: Path, number: int | None = None) -> str:
    fetch_verb("r", folder, number, store.uri, as_json=False)
    return (folder / "a").read_text()


def test_a_snapshot_that_does_not_come_out_whole_is_passed_over(
    folder_store: Store, snapshots: list[Snapshot], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(folder_store, snapshots[2])
    before = {info.key for info in folder_store.list()}
    assert fetch(folder_store, tmp_path / "fetched") == "two"
    assert capfd.readouterr().err.count("snapshot 3 is damaged, passed over") == 1
    assert {info.key for info in folder_store.list()} == before, "this may be a fault of this very machine"


def test_a_damaged_snapshot_that_was_asked_for_is_an_error(
    folder_store: Store, snapshots: list[Snapshot], tmp_path: Path
) -> None:
    damage(folder_store, snapshots[2])
    with pytest.raises(ObjectCorrupt, match="a: "):
        fetch(folder_store, tmp_path / "fetched", 3)
    assert not (tmp_path / "fetched").exists()


def test_without_any_whole_snapshot_there_is_nothing_to_fetch(
    folder_store: Store, snapshots: list[Snapshot], tmp_path: Path
) -> None:
    for snapshot in snapshots:
        damage(folder_store, snapshot)
    with pytest.raises(StarlingError, match="no snapshot that could be fetched"):
        fetch(folder_store, tmp_path / "fetched")


def test_what_came_after_the_verdict_does_not_count(
    folder_store: Store, snapshots: list[Snapshot], tmp_path: Path
) -> None:
    verdict = Verdict(state=RunState.DONE, at=time.time(), by="r.0.0", reason="r", result={"snapshot": 2})
    folder_store.create(layout.verdict("r", 0), verdict.to_bytes())
    assert fetch(folder_store, tmp_path / "fetched") == "two"
    assert fetch(folder_store, tmp_path / "third", 3) == "three"
