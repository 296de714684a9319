"""What is damaged is passed over and mended, who was cut off is refused, and reading never deletes."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.errors import NoRoom, ObjectCorrupt, StoreUnavailable
from starling.infra.snapshots.catalog import Catalog, Superseded
from starling.infra.snapshots.content import KnownFiles, read_content
from starling.infra.snapshots.listing import look
from starling.infra.snapshots.restore import DamagedFiles, restore
from starling.infra.store import Store
from starling.infra.store.oserrors import store_error
from tests.support.script_rounds import FailingStore
from tests.support.snapshot_folder import LOGS, Folder, tree


@pytest.fixture
def folder(tmp_path: Path, folder_store: Store) -> Folder:
    return Folder(tmp_path / "out", folder_store)


class Hasty(Catalog):
    """Another node's, that looked before a snapshot of ours was there."""

    looks = 0

    def numbers(self) -> list[int]:
        self.looks += 1
        return [] if self.looks == 1 else super().numbers()


@pytest.mark.parametrize("damage", ["missing", "cut short", "record"])
def test_a_damaged_snapshot_is_passed_over(folder: Folder, damage: str) -> None:
    folder.write("a", "one")
    first = folder.commit().snapshot
    folder.write("a", "twotwo")
    second = folder.commit().snapshot
    if damage == "missing":
        folder.store.delete(folder.blob("a", second))
    elif damage == "cut short":
        folder.store.put(folder.blob("a", second), b"two")
    else:
        folder.store.put(layout.snapshot("r", second.number), b'{"number": 2')
    passed: list[int] = []
    assert folder.catalog.newest(lambda number, reason: passed.append(number)) == first
    assert passed == [second.number]


def test_bytes_that_were_changed_are_found_out_and_nothing_is_deleted_for_it(folder: Folder) -> None:
    folder.write("a", "one")
    folder.write("b", "uno")
    first = folder.commit().snapshot
    folder.write("a", "two")
    folder.write("b", "due")
    second = folder.commit().snapshot
    folder.store.put(folder.blob("a", second), b"tvo")
    folder.store.delete(folder.blob("b", second))
    folder.store.put(folder.blob("b", second), b"dve")
    assert folder.catalog.newest() == second, "of the right size: only its bytes tell"
    there = folder.restored(first)
    with pytest.raises(DamagedFiles, match=r"a: .*b: ") as found:
        folder.restored(second)
    assert tree(there) == {"a": "one", "b": "uno"}, "as before"
    assert found.value.sha256s == {file.sha256 for file in second.files}, "all at once"
    assert folder.catalog.newest() == second, "another reader may find it whole"
    assert folder.catalog.newest(damaged=found.value.sha256s) == first


def test_what_was_found_damaged_is_uploaded_again(folder: Folder) -> None:
    folder.write("a", "one")
    (sha256,) = (file.sha256 for file in folder.commit().snapshot.files)
    folder.store.put(layout.snapshot_file("r", sha256), b"ono")
    folder.known.forget()
    commit = folder.commit(damaged={sha256})
    assert commit.uploaded_bytes == 3
    assert tree(folder.restored(commit.snapshot)) == {"a": "one"}


def test_a_full_disk_is_this_machines_and_not_the_stores(folder: Folder, tmp_path: Path) -> None:
    folder.write("a", "one")
    snapshot = folder.commit().snapshot
    store = FailingStore(tmp_path / "store")
    full = OSError(errno.ENOSPC, "No space left on device")
    store.fails["download"] = [store_error("write", tmp_path, full)]
    store.fails["download"][0].__cause__ = full
    with pytest.raises(NoRoom, match="No space left"):
        restore(Catalog(store, "r"), snapshot, tmp_path / "elsewhere", tmp_path / "aside")
    store.fails["download"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        restore(Catalog(store, "r"), snapshot, tmp_path / "elsewhere", tmp_path / "aside")


def test_who_was_cut_off_commits_and_deletes_nothing_any_more(folder: Folder) -> None:
    folder.write("a", "one")
    folder.commit(round_number=1)
    folder.write("a", "two")
    later = folder.commit(round_number=2).snapshot
    folder.write("a", "older")
    with pytest.raises(Superseded, match="in round 2, after round 1"):
        folder.commit(round_number=1)
    with pytest.raises(Superseded):
        folder.catalog.retire(1, incarnation=0, round_number=1)
    assert folder.catalog.newest() == later
    assert folder.catalog.numbers() == [1, 2]
    resumed = folder.commit(round_number=0, incarnation=1).snapshot
    assert resumed.number == 3, "a resumed run counts its rounds anew"


def test_who_loses_the_race_for_a_number_looks_again(folder: Folder) -> None:
    folder.write("a", "one")
    stale = Hasty(folder.store, "r")
    later = folder.commit(round_number=2).snapshot
    content = read_content(folder.path, look(folder.path), KnownFiles(), LOGS)
    with pytest.raises(Superseded):
        stale.commit(content, why="stop", incarnation=0, round_number=1, node="r.1.0", began=time.monotonic())
    assert folder.catalog.newest() == later


def test_only_snapshots_up_to_a_number_may_be_asked_for(folder: Folder) -> None:
    for number in range(3):
        folder.write("a", f"{number}")
        folder.commit()
    newest = folder.catalog.newest(upto=2)
    assert newest is not None
    assert newest.number == 2


def test_a_record_that_leads_out_of_the_folder_is_damaged(folder: Folder) -> None:
    folder.write("a", "one")
    snapshot = folder.commit().snapshot
    key = layout.snapshot("r", snapshot.number)
    for before, after in (('"path":"a"', '"path":"../a"'), ('"links":{}', '"links":{"l":"../../x"}')):
        folder.store.put(key, snapshot.model_dump_json().replace(before, after).encode())
        with pytest.raises(ObjectCorrupt):
            folder.catalog.read(snapshot.number)


def test_of_two_who_commit_at_once_each_gets_a_number(folder: Folder) -> None:
    folder.write("a", "one")
    other = Hasty(folder.store, "r")
    folder.commit()
    content = read_content(folder.path, look(folder.path), KnownFiles(), LOGS)
    commit = other.commit(content, why="stop", incarnation=0, round_number=1, node="r.1.0", began=time.monotonic())
    assert commit.snapshot.number == 2
