"""The node's cache of chunks under several processes, one of which may be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from starling.infra.store import open_store
from starling.trainer.data.index import DatasetPlace, load_index, locate
from starling.trainer.data.read import ShardSamples
from tests.support.datasets import some_files, write_dataset

ROOT = Path(__file__).parents[2]

WORKER = """
import hashlib, sys, time
from pathlib import Path
from starling.infra.store import open_store
from starling.trainer.data.index import DatasetPlace, load_index, locate
from starling.trainer.data.read import ShardSamples

store_uri, cache, log, stall = sys.argv[1:]

class Watched:
    # notes every range that is read; may stop half-way through the first
    def __init__(self, store): self._store = store
    def __getattr__(self, name): return getattr(self._store, name)
    def read_range(self, key, offset, length):
        with open(log, "a") as file: file.write(f"{key}:{offset}\\n")
        time.sleep(0.05)
        return self._store.read_range(key, offset, length)

class Stalling(Watched):
    def stream_range(self, key, offset, length, take):
        take(memoryview(self.read_range(key, offset, length // 2)))
        print("stalled", flush=True)
        time.sleep(600)

store = open_store(store_uri)
watched = (Stalling if stall == "stall" else Watched)(store)
place = DatasetPlace(store=watched, prefix=locate(store, "files").prefix)
samples = ShardSamples(place, load_index(store, "files"), "train", Path(cache), memory_bytes=0)
everything = list(range(len(samples)))
samples.expect(everything[:1])
samples.expect(everything[1:])
digest = hashlib.sha256()
for start in range(0, len(everything), 8):
    for data in samples.read_bytes(everything[start : start + 8]): digest.update(data)
print(digest.hexdigest())
"""


@pytest.fixture
def place(tmp_path: Path) -> DatasetPlace:
    (tmp_path / "store").mkdir()
    store = open_store(str(tmp_path / "store"))
    write_dataset(store, some_files(60, 100_000), shard_bytes=1 << 20)
    return locate(store, "files")


def start(place: DatasetPlace, tmp_path: Path, stall: str = "") -> subprocess.Popen[str]:
    arguments = [place.store.uri, str(tmp_path / "cache"), str(tmp_path / "ranges"), stall]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_racing_processes_download_every_chunk_once(place: DatasetPlace, tmp_path: Path) -> None:
    processes = [start(place, tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(outputs)) == 1
    ranges = Counter((tmp_path / "ranges").read_text().split())
    assert set(ranges.values()) == {1}
    assert len(ranges) == len(load_index(open_store(place.store.uri), "files").splits["train"].shards) > 4


def test_a_killed_download_blocks_nobody_and_is_not_trusted(place: DatasetPlace, tmp_path: Path) -> None:
    with start(place, tmp_path, "stall") as stalled:
        assert stalled.stdout is not None
        first_line = stalled.stdout.readline()
        stalled.kill()
    assert first_line == "stalled\n"
    assert list((tmp_path / "cache").glob("shards/*/*.part"))
    began = time.monotonic()
    store = open_store(place.store.uri)
    samples = ShardSamples(place, load_index(store, "files"), "train", tmp_path / "cache", memory_bytes=0)
    found = samples.read_bytes(range(len(samples)))
    assert time.monotonic() - began < 30
    assert [bytes(data) for data in found] == some_files(60, 100_000)
    assert not list((tmp_path / "cache").glob("shards/*/*.part"))
