"""The folder store: the contract, and what only a folder can get wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.clock import FakeClock, SystemClock
from starling.infra.errors import StoreAccessDenied, StoreError, StoreUnavailable
from starling.infra.store import Store, open_store
from starling.infra.store.folder import FolderStore
from starling.infra.store.locks import LOCK_FILES, locked
from starling.infra.store.oserrors import MEANING, store_error
from starling.infra.store.staging import ABANDONED_AFTER
from tests.contract.store_suite import RACERS, StoreSuite


class TestFolderStore(StoreSuite):
    process_rounds = 100
    thread_rounds = 100
    racing_processes = RACERS
    increments = 20

    @pytest.fixture
    def store(self, folder_store: Store) -> Store:
        return folder_store

    def damage(self, store: Store, key: str) -> None:
        with (Path(store.uri) / key).open("r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "typo"))
    assert list(store.list()) == []
    store.delete("k")
    assert not (tmp_path / "typo").exists()


def test_objects_are_plain_files_and_nothing_else_shows(folder_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    folder_store.create("runs/a/run.json", b"{}")
    folder_store.upload(file, "runs/a/weights")
    root = Path(folder_store.uri)
    assert (root / "runs/a/run.json").read_bytes() == b"{}"
    (root / "runs/a/.DS_Store").write_bytes(b"somebody else's")
    (root / "runs/a/my notes.txt").write_bytes(b"somebody else's")
    assert [info.key for info in folder_store.list()] == ["runs/a/run.json", "runs/a/weights"]
    assert not list((root / ".starling/staging").iterdir())
    assert len([path for path in (root / ".starling/sha256").rglob("*") if path.is_file()]) == 1
    folder_store.delete("runs/a/weights")
    assert not [path for path in (root / ".starling/sha256").rglob("*") if path.is_file()]


LISTS_AND_TELLS = """
import sys
from starling.infra.store import open_store
def tell(event, args):
    if event == "os.scandir":
        print(str(args[0]).removeprefix(sys.argv[1]))
sys.addaudithook(tell)
assert [info.key for info in open_store(sys.argv[1]).list(sys.argv[2])] == ["runs/mine/x"]
"""


@pytest.mark.parametrize(("prefix", "folders"), [("runs/mine/", "/runs/mine"), ("runs/mi", "/runs\n/runs/mine")])
def test_a_narrow_listing_does_not_walk_the_rest(folder_store: Store, prefix: str, folders: str) -> None:
    for run in ("mine", "other", "third"):
        folder_store.put(f"runs/{run}/x", b"")
    command = [sys.executable, "-c", LISTS_AND_TELLS, folder_store.uri, prefix]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip() == folders


def test_a_rewrite_within_one_tick_of_the_clock_shows_in_the_tag(folder_store: Store) -> None:
    tags = []
    for number in range(300):
        folder_store.put("k", b"%03d" % number)
        tags.append(folder_store.stat("k").tag)
    assert len(set(tags)) == 300


def test_a_key_below_another_key_is_refused_clearly(folder_store: Store) -> None:
    folder_store.put("a", b"x")
    for write in (folder_store.put, folder_store.create):
        with pytest.raises(StoreError, match="no key can lie below another: `a` and `a/b` exclude each other"):
            write("a/b", b"y")
    folder_store.put("c/d", b"x")
    for write in (folder_store.put, folder_store.create):
        with pytest.raises(StoreError, match="no key can lie below another: `a` and `a/b` exclude each other"):
            write("c", b"y")
    assert [info.key for info in folder_store.list()] == ["a", "c/d"]


# Writers that die


KILLED_HALFWAY = """
import os, signal, sys, pathlib
from starling.infra.store import open_store
store = open_store(sys.argv[1])
staging = pathlib.Path(sys.argv[1], ".starling/staging")
store.put("before", b"x")
def watch(event, args):
    if event == sys.argv[3] and ".starling/staging" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
getattr(store, sys.argv[2])("k", b"new", *sys.argv[4:])
"""


@pytest.mark.parametrize(
    ("operation", "event"), [("put", "os.rename"), ("create", "os.link"), ("replace", "os.rename")]
)
def test_a_writer_killed_halfway_changes_nothing_and_blocks_nobody(
    folder_store: Store, operation: str, event: str
) -> None:
    more = [folder_store.put("k", b"old")] if operation == "replace" else []
    command = [sys.executable, "-c", KILLED_HALFWAY, folder_store.uri, operation, event, *more]
    assert subprocess.run(command, check=False).returncode == -9
    assert {info.key for info in folder_store.list()} == {"before", "k"} - ({"k"} if not more else set())
    assert len(list(Path(folder_store.uri, ".starling/staging").iterdir())) == 1
    folder_store.put("k", b"next")  # the lock died with its holder
    assert folder_store.get("k").data == b"next"


def test_leftovers_of_killed_writers_are_swept_once_they_are_old(tmp_path: Path) -> None:
    staging = tmp_path / "store/.starling/staging"
    staging.mkdir(parents=True)
    (staging / "old").write_bytes(b"x")
    (staging / "new").write_bytes(b"x")
    now = time.time()
    os.utime(staging / "old", (now, now - ABANDONED_AFTER - 1))
    open_store(str(tmp_path / "store")).put("k", b"x")
    assert [path.name for path in staging.iterdir()] == ["new"]


def test_a_lock_that_is_never_released_is_reported(tmp_path: Path) -> None:
    clock = FakeClock()
    store = FolderStore(tmp_path, clock=clock, lock_patience=30)
    store.put("k", b"x")
    held = [os.open(path, os.O_RDWR) for path in (tmp_path / ".starling/locks").iterdir()]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    started = clock.now()
    with pytest.raises(StoreUnavailable, match="was held by another process for 30 s"):
        store.put("k", b"y")
    assert 30 <= clock.now() - started < 31
    for descriptor in held:
        os.close(descriptor)
    store.put("k", b"y")
    assert len(held) <= LOCK_FILES


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of just what is tested here
def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    """The child inherits the lock's descriptor if another thread writes at the moment of the fork."""
    with locked(tmp_path, "k", SystemClock(), patience=1):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with locked(tmp_path, "k", SystemClock(), patience=1):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# What the operating system refuses


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 1 MB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_does_not_fit_changes_nothing_and_leaves_nothing(folder_store: Store) -> None:
    folder_store.put("k", b"old")
    with pytest.raises(StoreUnavailable, match=r"cannot write .*/store/k: File too large"):
        folder_store.put("k", b"x" * 2_000_000)
    assert folder_store.get("k").data == b"old"
    assert not list(Path(folder_store.uri, ".starling/staging").iterdir())


def test_a_folder_that_cannot_be_written_is_named() -> None:
    store = open_store("/sys/kernel")  # not even root may make files there
    with pytest.raises(StoreAccessDenied, match=r"/sys/kernel/k: .*check .*permissions"):
        store.put("k", b"x")


@pytest.mark.parametrize("number", sorted(MEANING))
def test_every_error_of_the_table_says_what_where_and_what_to_do(number: int) -> None:
    kind, advice = MEANING[number]
    error = store_error("write", Path("/data/k"), OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert str(error) == f"cannot write /data/k: {os.strerror(number)}; {advice}"


def test_an_unknown_error_is_no_known_one() -> None:
    error = store_error("write", Path("/data/k"), OSError(errno.ELIBBAD, "odd"))
    assert type(error) is StoreError
    assert "odd" in str(error)
