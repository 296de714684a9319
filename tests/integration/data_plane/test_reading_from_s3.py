"""Reading a dataset from a real S3 server: what is downloaded, when, and what happens if it goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from starling.infra.errors import ObjectCorrupt, ObjectNotFound, StoreUnavailable
from starling.infra.region.s3_server import S3Server, s3_server
from starling.infra.store import Store, open_store
from starling.infra.store.s3 import S3Store
from starling.infra.store.s3_client import S3Patience
from starling.infra.store.streaming import Take, stream_range
from starling.trainer.data.index import DatasetIndex, DatasetPlace, locate
from starling.trainer.data.read import ShardSamples
from starling.trainer.data.stored import FIRST_CHUNKS
from tests.support.datasets import some_files, write_dataset

FILES = 480
SHARD = 1 << 20
"""Smaller than a chunk: every shard is one chunk, of some ten files."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return some_files(FILES, 90_000)


@pytest.fixture(scope="module")
def store(server: S3Server) -> Store:
    return open_store(server.new_bucket())


@pytest.fixture(scope="module")
def index(store: Store, files: list[bytes]) -> DatasetIndex:
    return write_dataset(store, files, shard_bytes=SHARD)


class Counted:
    """A store that counts what is read from it, and may hold chunks back."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uri = store.uri
        self.bytes = 0
        self.keys: list[str] = []
        self.chunks_may_come = threading.Event()
        self.chunks_may_come.set()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self.store.read_range(key, offset, length)

    def stream_range(self, key: str, offset: int, length: int, take: Take) -> int:
        if length > SHARD // 2:
            assert self.chunks_may_come.wait(60)
        self.keys.append(key)
        self.bytes += length
        stream_range(self.store, key, offset, length, take)
        return length


@pytest.fixture
def counted(store: Store) -> Counted:
    return Counted(store)


def reader(counted: Counted | Store, index: DatasetIndex, cache: Path, cache_bytes: int | None = None) -> ShardSamples:
    place = DatasetPlace(store=counted, prefix="data/files/")  # type: ignore[arg-type]  # it has what reading needs
    return ShardSamples(place, index, "train", cache, memory_bytes=0, cache_bytes=cache_bytes)


def on_disk(cache: Path) -> int:
    total = 0
    for path in cache.glob("shards/*/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_an_epoch_gives_every_file_and_downloads_every_shard_once(
    counted: Counted, index: DatasetIndex, files: list[bytes], tmp_path: Path
) -> None:
    for epoch in range(2):  # the second finds them in the cache, as the next round would
        samples = reader(counted, index, tmp_path)
        order = samples.order(0, epoch).tolist()
        samples.expect(order[:8])
        samples.expect(order[8:])
        for start in range(0, FILES, 32):
            found = samples.read_bytes(order[start : start + 32])
            assert [bytes(data) for data in found] == [files[entry] for entry in order[start : start + 32]]
        samples.close()
    assert len(counted.keys) == len(set(counted.keys)) == len(index.splits["train"].shards)


def test_the_first_batch_does_not_wait_for_chunks(
    counted: Counted, index: DatasetIndex, files: list[bytes], tmp_path: Path
) -> None:
    """It is spread over many of them, as with many virtual shards, and none arrives before it is done."""
    counted.chunks_may_come.clear()
    samples = reader(counted, index, tmp_path)
    first = list(range(0, FILES, 10))
    assert len(first) > FIRST_CHUNKS
    samples.expect(first)
    assert [bytes(data) for data in samples.read_bytes(first)] == [files[entry] for entry in first]
    assert counted.bytes == sum(len(files[entry]) for entry in first)
    counted.chunks_may_come.set()
    assert bytes(samples.read_bytes([1])[0]) == files[1]
    samples.close()


def test_a_reader_that_begins_in_the_middle_downloads_only_what_it_needs(
    counted: Counted, index: DatasetIndex, tmp_path: Path
) -> None:
    samples = reader(counted, index, tmp_path)
    last_eighth = list(range(FILES * 7 // 8, FILES))
    samples.expect(last_eighth)
    samples.read_bytes(last_eighth)
    needed = {index.splits["train"].samples[entry].shard for entry in last_eighth}
    samples.close()
    assert sorted(counted.keys) == [f"data/files/train/shard-{number:05}.tar" for number in sorted(needed)]


def test_a_small_cache_bounds_the_disk_and_changes_nothing_else(
    counted: Counted, index: DatasetIndex, files: list[bytes], tmp_path: Path
) -> None:
    limit = 6 * SHARD
    samples = reader(counted, index, tmp_path, limit)
    samples.expect(range(8))
    samples.expect(range(8, FILES))
    for start in range(0, FILES, 32):
        found = samples.read_bytes(range(start, start + 32))
        assert [bytes(data) for data in found] == files[start : start + 32]
        assert on_disk(tmp_path) <= limit + SHARD, "one may be seen under both of its names"
    samples.close()


def test_fetching_ahead_is_bounded(counted: Counted, index: DatasetIndex, tmp_path: Path) -> None:
    samples = reader(counted, index, tmp_path, 16 * SHARD)
    samples.expect(range(8))
    samples.expect(range(8, FILES))
    samples.read_bytes([0])
    ahead = {index.splits["train"].samples[entry].shard for entry in range(FILES)}
    samples.close()
    assert len(counted.keys) <= 4 + 1 < len(ahead)


def test_a_shard_that_was_changed_in_the_store_is_named_with_the_sample(store: Store, tmp_path: Path) -> None:
    index = write_dataset(store, some_files(4, 50_000, seed=1), name="changed")
    shard, sample = index.splits["train"].shards[0], index.splits["train"].samples[2]
    data = bytearray(store.get(f"data/changed/{shard.key}").data)
    data[sample.offset + 7] ^= 1
    store.put(f"data/changed/{shard.key}", bytes(data))
    samples = ShardSamples(locate(store, "changed"), index, "train", tmp_path, memory_bytes=0)
    samples.read_bytes([0, 1, 3])
    with pytest.raises(ObjectCorrupt, match=rf"{sample.key} in data/changed/{shard.key} of s3://"):
        samples.read_bytes([2])
    store.put(f"data/changed/{shard.key}", bytes(data[: sample.offset]))
    with pytest.raises(ObjectCorrupt, match="ends at byte"):
        ShardSamples(locate(store, "changed"), index, "train", tmp_path / "new").read_bytes([0])
    store.delete(f"data/changed/{shard.key}")
    with pytest.raises(ObjectNotFound, match=shard.key):
        ShardSamples(locate(store, "changed"), index, "train", tmp_path / "newer").read_bytes([0])


def test_a_range_comes_in_pieces_whatever_the_connection_does(store: Store) -> None:
    content = some_files(1, 3 << 20)[0]
    store.put("big", content)
    assert isinstance(store, S3Store)
    for broken in (False, True):
        found = bytearray()
        stream_range(store, "big", 5, 2 << 20, found.extend)
        assert found == content[5 : 5 + (2 << 20)]
        if not broken:  # as if the server had closed it meanwhile
            store._streams._mine.value.connection.sock.shutdown(2)


def test_a_store_that_is_gone_is_an_error_in_time(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with s3_server(tmp_path_factory.mktemp("gone")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        uri = server.new_bucket()
        store = open_store(uri)
        index = write_dataset(store, some_files(60, 90_000, seed=2), shard_bytes=SHARD)
        bucket = uri.removeprefix("s3://").partition("/")[0]
        impatient = S3Store(
            bucket, "store", endpoint_url=server.endpoint_url, region="us-east-1", patience=S3Patience(attempts=1)
        )
        samples = reader(impatient, index, tmp_path)
        samples.read_bytes(range(10))
    with pytest.raises(StoreUnavailable):
        samples.read_bytes(range(60))
    assert len(samples.read_bytes(range(10))) == 10, "what is in the cache can still be read"
    samples.close()
