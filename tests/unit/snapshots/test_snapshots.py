"""A snapshot is whole or does not exist, costs only what changed, and is restored to the last byte or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.errors import ObjectNotFound
from starling.infra.snapshots.content import Disturbed, read_content
from starling.infra.snapshots.listing import look
from starling.infra.snapshots.restore import restore
from starling.infra.store import Store
from tests.support.snapshot_folder import LOGS, Folder, tree


@pytest.fixture
def folder(tmp_path: Path, folder_store: Store) -> Folder:
    return Folder(tmp_path / "out", folder_store)


def test_everything_comes_back_elsewhere(folder: Folder) -> None:
    folder.write("a/b/model.pt", "weights")
    folder.write("odd name ü'\n.txt", "x")
    folder.write("empty.txt", "")
    folder.write("same.txt", "weights")
    (folder.path / "nothing in here").mkdir()
    (folder.path / "last.pt").symlink_to("a/b/model.pt")
    (folder.path / "dangling").symlink_to("a/gone")
    (folder.path / "a" / "b" / "absolute").symlink_to(folder.path / "empty.txt")
    (folder.path / "same.txt").chmod(0o640)
    commit = folder.commit()
    there = folder.restored(commit.snapshot)
    expected = tree(folder.path) | {"a/b/absolute": "-> ../../empty.txt"}
    assert tree(there) == expected
    assert (there / "same.txt").stat().st_mode & 0o777 == 0o640
    assert (there / "absolute").exists() is False
    assert (there / "same.txt").stat().st_ino != (there / "a/b/model.pt").stat().st_ino
    assert not (folder.path.parent / "aside").exists()


def test_what_cannot_be_held_is_named(folder: Folder) -> None:
    folder.write("model.pt", "weights")
    (folder.path / "out").symlink_to("/etc")
    (folder.path / "up").symlink_to("../..")
    os.symlink(b"gone-\xff", os.fsencode(folder.path) + b"/to-bad")
    os.mkfifo(folder.path / "pipe")
    with open(os.fsencode(folder.path) + b"/bad-\xff", "w"):
        pass
    snapshot = folder.commit().snapshot
    assert set(snapshot.left_out) == {"out", "up", "pipe", "to-bad", "bad-\\udcff"}
    assert "leads out" in snapshot.left_out["out"]
    assert snapshot.left_out["to-bad"] == "what it links to is not UTF-8"
    assert tree(folder.restored(snapshot)) == {"model.pt": "weights"}


def test_only_what_changed_is_uploaded(folder: Folder) -> None:
    folder.write("big.pt", "x" * 1000)
    folder.write("small.pt", "y" * 10)
    assert folder.commit().uploaded_bytes == 1010
    assert folder.commit().uploaded_bytes == 0
    folder.write("small.pt", "z" * 20)
    folder.write("copy-of-big.pt", "x" * 1000)
    assert folder.commit().uploaded_bytes == 20


def test_a_folder_with_something_of_it_downloads_only_the_rest(folder: Folder) -> None:
    folder.write("kept.pt", "k" * 100)
    folder.write("changed.pt", "c" * 100)
    first = folder.commit().snapshot
    folder.write("changed.pt", "d" * 100)
    folder.write("deleted-later.pt", "e")
    assert restore(folder.catalog, first, folder.path, folder.path.parent / "aside") == 100
    assert tree(folder.path) == {"kept.pt": "k" * 100, "changed.pt": "c" * 100}
    assert restore(folder.catalog, first, folder.path, folder.path.parent / "aside") == 0


def test_without_its_record_a_snapshot_does_not_exist(folder: Folder) -> None:
    folder.write("a", "one")
    first = folder.commit().snapshot
    folder.write("a", "two")
    second = folder.commit().snapshot
    folder.store.delete(layout.snapshot("r", second.number))
    assert folder.catalog.newest() == first
    assert folder.commit().snapshot.number == second.number


def test_old_snapshots_go_with_the_files_that_only_they_held(folder: Folder) -> None:
    folder.write("always", "here")
    snapshots = []
    for number in range(4):
        folder.write("model.pt", f"weights {number}")
        snapshots.append(folder.commit().snapshot)
    under_way = layout.snapshot_file("r", "0" * 64)
    folder.store.put(under_way, b"an upload whose record is still to come")
    assert folder.catalog.retire(2, incarnation=0, round_number=0) == [1, 2]
    assert folder.catalog.numbers() == [3, 4]
    held = {folder.blob(name, snapshot) for snapshot in snapshots[2:] for name in ("always", "model.pt")}
    left = {info.key for info in folder.store.list(layout.snapshot_files("r"))}
    assert left == held | {under_way}
    assert folder.catalog.retire(2, incarnation=0, round_number=0) == []


def test_what_a_killed_upload_left_goes_after_an_hour(folder: Folder) -> None:
    left = layout.snapshot_file("r", "0" * 64)
    folder.store.put(left, b"half of a snapshot")
    stored = next((Path(folder.store.uri)).rglob("0" * 64))
    os.utime(stored, (time.time() - 4000, time.time() - 4000))
    folder.write("a", "one")
    folder.commit()
    folder.catalog.retire(3, incarnation=0, round_number=0)
    with pytest.raises(ObjectNotFound):
        folder.store.stat(left)


def test_nothing_is_deleted_while_a_kept_record_cannot_be_read(folder: Folder) -> None:
    for number in range(3):
        folder.write("a", f"{number}")
        folder.commit()
    folder.store.put(layout.snapshot("r", 3), b"{")
    assert folder.catalog.retire(1, incarnation=0, round_number=0) == []
    assert folder.catalog.numbers() == [1, 2, 3]


def test_a_copy_is_what_is_uploaded_not_what_the_script_writes_meanwhile(folder: Folder, tmp_path: Path) -> None:
    folder.write("a", "one")
    copies = tmp_path / "copies"
    copies.mkdir()
    listing = look(folder.path)
    content = read_content(folder.path, listing, folder.known, LOGS, copies=copies)
    folder.write("a", "two")
    done = folder.catalog.commit(
        content, why="interval", incarnation=0, round_number=0, node="n", began=time.monotonic()
    )
    assert tree(folder.restored(done.snapshot)) == {"a": "one"}


def test_a_file_that_changes_while_it_is_uploaded_makes_no_snapshot(folder: Folder) -> None:
    folder.write("a", "one")
    content = read_content(folder.path, look(folder.path), folder.known, LOGS)
    folder.write("a", "two")
    with pytest.raises(Disturbed):
        folder.catalog.commit(content, why="stop", incarnation=0, round_number=0, node="n", began=time.monotonic())
    assert folder.catalog.numbers() == []
    assert list(folder.store.list(layout.snapshot_files("r"))) == []


def test_every_change_shows_in_a_listing_but_that_of_a_log(folder: Folder) -> None:
    folder.write("a", "one")
    folder.write("train.log", "x")
    before = look(folder.path)
    folder.write("train.log", "xx")
    assert before.difference(look(folder.path), LOGS) is None
    assert before.difference(look(folder.path), ()) == "train.log"
    stamp = (folder.path / "a").stat()
    folder.write("a", "two")
    os.utime(folder.path / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert before.difference(look(folder.path), LOGS) == "a", "same size, same mtime"


def test_a_log_is_no_progress(folder: Folder) -> None:
    folder.write("a", "one")
    folder.write("train.log", "x")
    first = folder.commit().snapshot
    folder.write("train.log", "xx")
    second = folder.commit().snapshot
    folder.write("a", "two")
    assert first.content == second.content != folder.commit().snapshot.content
