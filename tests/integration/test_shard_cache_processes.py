"""The node's shard cache under several processes, one of which may be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starling.infra.store import open_store
from starling.trainer.data.cache import fetch_shards
from starling.trainer.data.index import DatasetPlace, load_index, locate
from starling.trainer.data.prepare import prepare

WORKER = """
import json, sys, time
from pathlib import Path
from starling.infra.store import open_store
from starling.trainer.data.cache import fetch_shards
from starling.trainer.data.index import DatasetPlace, load_index, locate

store_uri, cache, log, stall = sys.argv[1:]

class Watched:
    # notes every download; may stop half-way through the first
    def __init__(self, store): self._store = store
    def __getattr__(self, name): return getattr(self._store, name)
    def download(self, key, path, sha256=None):
        with open(log, "a") as file: file.write(key + "\\n")
        if stall == "stall":
            path.with_name("half").write_bytes(b"half")
            print("stalled", flush=True)
            time.sleep(600)
        time.sleep(0.05)
        self._store.download(key, path, sha256)

store = open_store(store_uri)
place = DatasetPlace(store=Watched(store), prefix=locate(store, "pets").prefix)
shards = load_index(store, "pets").splits["train"].shards
print(json.dumps([str(path) for path in fetch_shards(place, shards, Path(cache))]))
"""


@pytest.fixture
def place(tmp_path: Path) -> DatasetPlace:
    for class_name in ("cat", "dog"):
        for number in range(10):
            folder = tmp_path / "images" / class_name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "store").mkdir()
    store = open_store(str(tmp_path / "store"))
    prepare(str(tmp_path / "images"), store, "pets", shard_bytes=4096)
    return locate(store, "pets")


def start(place: DatasetPlace, tmp_path: Path, stall: str = "") -> subprocess.Popen[str]:
    arguments = [place.store.uri, str(tmp_path / "cache"), str(tmp_path / "downloads"), stall]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


def test_racing_processes_download_every_shard_once(place: DatasetPlace, tmp_path: Path) -> None:
    processes = [start(place, tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    shards = load_index(place.store, "pets").splits["train"].shards
    downloads = (tmp_path / "downloads").read_text().split()
    assert sorted(downloads) == sorted(place.shard_key(shard) for shard in shards)
    assert len(set(outputs)) == 1
    assert [Path(path).stat().st_size for path in json.loads(outputs[0])] == [shard.size for shard in shards]


def test_a_killed_download_blocks_nobody(place: DatasetPlace, tmp_path: Path) -> None:
    with start(place, tmp_path, "stall") as stalled:
        assert stalled.stdout is not None
        first_line = stalled.stdout.readline()
        stalled.kill()
    assert first_line == "stalled\n"
    assert list((tmp_path / "cache").glob("*.part/half"))
    began = time.monotonic()
    shards = load_index(place.store, "pets").splits["train"].shards
    paths = fetch_shards(place, shards, tmp_path / "cache")
    assert time.monotonic() - began < 30
    assert [path.stat().st_size for path in paths] == [shard.size for shard in shards]
    assert not list((tmp_path / "cache").glob("*.part"))
