from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from starling.infra.store.anywhere import FsspecStorage
from starling.trainer.data import downloads as downloads_module
from starling.trainer.data.cache import ChunkCache
from starling.trainer.data.chunks import Chunk
from starling.trainer.data.downloads import Downloads
from starling.trainer.data.index import DatasetPlace
from starling.trainer.data.open_chunks import OPEN_CHUNKS

SIZE = 4096
"""A page: what is mapped can be counted."""


class Counting(FsspecStorage):
    """A folder that counts what is read from it."""

    reads = 0

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read_range(key, offset, length)


Open = Callable[..., SimpleNamespace]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(count, limit)` has .downloads of one shard in `count` chunks, and the .store they come from. Each opens
    another shard."""
    made: list[Downloads] = []

    def open_(count: int, limit: int) -> SimpleNamespace:
        (tmp_path / "shard").write_bytes(bytes(count * SIZE))
        store = Counting(f"local://{tmp_path}")
        sha256 = f"{len(made):064}"
        chunks = [Chunk("shard", sha256, n * SIZE, (n + 1) * SIZE) for n in range(count)]
        made.append(Downloads(DatasetPlace(store=store, prefix=""), chunks, ChunkCache(tmp_path / "cache", limit)))
        return SimpleNamespace(downloads=made[-1], store=store)

    yield open_
    for each in made:
        each.close()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def downloading() -> int:
    return sum(thread.name == "download" for thread in threading.enumerate())


def taken(cache: Path) -> int:
    """Bytes that a cache takes of the disk, with files that are mapped and have no name any more."""
    there = sum(path.stat().st_size for path in cache.glob("*/*-*"))
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
    inodes = {inode for _, _, _, _, inode, name in lines if name.endswith("(deleted)")}
    return there + SIZE * len(inodes)


def test_the_bound_holds_for_what_all_readers_keep_open_and_for_idle_threads(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "IDLE", 600)
    limit = 32 * SIZE
    readers = [opened(60, limit).downloads for _ in range(3)]
    for reader in [*readers, *readers]:
        for chunk in range(60):
            reader.need([chunk])
            readers[0].need([0, 1])  # are used all the time, but found in the cache only once: so they are evicted
            wait_until(lambda: taken(tmp_path / "cache") <= limit)
    assert downloading() > 0
    assert taken(tmp_path / "cache") > limit / 2


def test_readers_share_the_descriptors_and_give_them_back(opened: Open) -> None:
    count = OPEN_CHUNKS // 2 + 60
    before = len(os.listdir("/proc/self/fd"))
    readers = [opened(count, 10**9).downloads for _ in range(2)]
    for reader in readers:
        for chunk in range(count):
            reader.need([chunk])
    assert OPEN_CHUNKS - 30 < len(os.listdir("/proc/self/fd")) - before < OPEN_CHUNKS + 30
    assert readers[1].need([count - 1])
    readers[1].close()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) - before < OPEN_CHUNKS - count + 30)


def test_without_a_cache_chunks_are_fetched_ahead_into_memory(opened: Open) -> None:
    node = opened(40, 0)
    node.downloads.expect((chunk, chunk) for chunk in range(40))
    wait_until(lambda: node.store.reads == 40)
    assert len(node.downloads.need(range(40))) == 40
    assert node.store.reads == 40


def test_a_long_run_does_not_use_up_the_descriptors_of_its_process(opened: Open) -> None:
    count = OPEN_CHUNKS + 60
    downloads = opened(count, 10**9).downloads
    before = len(os.listdir("/proc/self/fd"))
    for chunk in range(count):
        downloads.need([chunk])
    assert len(os.listdir("/proc/self/fd")) - before < OPEN_CHUNKS + 30


def test_all_ranks_of_a_node_together_fetch_no_more_ahead_than_the_cache_holds(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    node = opened(40, 64 * SIZE)
    node.downloads.expect((chunk, chunk) for chunk in range(40))
    wait_until(lambda: node.store.reads == 4)
    time.sleep(0.1)
    assert node.store.reads == 4


def test_fetching_ahead_goes_on_after_a_long_pause(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads_module, "IDLE", 0.02)
    wait_until(lambda: downloading() == 0)
    node = opened(40, 16 * SIZE)
    node.downloads.expect((chunk, chunk) for chunk in range(40))
    wait_until(lambda: node.store.reads == 4 and downloading() == 0)
    node.downloads.reached(3)
    wait_until(lambda: node.store.reads == 7)


def test_chunks_for_which_the_disk_has_no_room_are_kept_in_memory(opened: Open) -> None:
    node = opened(4, 0)
    for _ in range(3):
        assert len(node.downloads.need(range(4))) == 4
    assert node.store.reads == 4
