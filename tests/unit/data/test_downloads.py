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
from starling.trainer.data.downloads import OPEN_CHUNKS, Downloads
from starling.trainer.data.index import DatasetPlace

SIZE = 100


class Counting(FsspecStorage):
    """A folder that counts what is read from it."""

    reads = 0

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read_range(key, offset, length)


Open = Callable[..., SimpleNamespace]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(count, limit)` has .downloads of one shard in `count` chunks, and the .store they come from."""
    made: list[Downloads] = []

    def open_(count: int, limit: int) -> SimpleNamespace:
        (tmp_path / "shard").write_bytes(bytes(count * SIZE))
        store = Counting(f"local://{tmp_path}")
        chunks = [Chunk("shard", "a" * 64, n * SIZE, (n + 1) * SIZE) for n in range(count)]
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
