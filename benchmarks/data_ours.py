"""Our own reader of the data benchmark, and what it is compared with: ranged GETs alone, and local files.

`python -m benchmarks.data_ours READER` reads, turn after turn, as the peers do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import boto3
from botocore.config import Config
from torch.utils.data import Dataset

from benchmarks.data_passes import LOCAL, OURS, RAW_BOTO3, RAW_KEPT, RAW_STORE
from benchmarks.data_peers.loading import load
from benchmarks.data_peers.turn import Job, Reader, Seen, seen, serve
from starling.infra.store import open_store
from starling.trainer.data.feed import Feed, Wanted
from starling.trainer.data.index import load_index, locate
from starling.trainer.data.read import ShardSamples

RANGE = 8 * 2**20
IN_FLIGHT = 4


def read_with_starling(job: Job) -> Iterator[Seen]:
    """One epoch in the order, and with the reader, of a training run; decoded as the training loop gets it."""
    store, uri = open_store(_uri(job)), _uri(job)
    samples = ShardSamples(locate(store, uri), load_index(store, uri), "train", Path(job.cache), memory_bytes=0)
    entries = samples.order(seed=0, epoch=0).tolist()[job.start :]
    batches = [entries[first : first + job.batch] for first in range(0, len(entries), job.batch)]
    with closing(samples):
        yield from (_decoded if job.decode else _undecoded)(samples, batches, job)


def _undecoded(samples: ShardSamples, batches: list[list[int]], job: Job) -> Iterator[Seen]:
    samples.expect([entry for batch in batches for entry in batch])
    for batch in batches:
        yield seen(samples.read_bytes(batch), job)


def _decoded(samples: ShardSamples, batches: list[list[int]], job: Job) -> Iterator[Seen]:
    wanted = (Wanted(0, batch, [1.0] * len(batch), 0) for batch in batches)
    with Feed(samples, wanted, seed=0) as feed:
        for _ in batches:
            yield Seen(images=len(feed.take(0)[0]["image"]))


def read_raw_with_boto3(job: Job) -> Iterator[Seen]:
    """All bytes of the dataset's shards in ranges, several at a time, and nothing else done."""
    client = boto3.client("s3", endpoint_url=job.endpoint, config=Config(max_pool_connections=IN_FLIGHT))
    listed = client.list_objects_v2(Bucket=job.bucket, Prefix=f"{job.dataset}/")["Contents"]

    def get(key: str, offset: int, length: int) -> bytes:
        wanted = f"bytes={offset}-{offset + length - 1}"
        content: bytes = client.get_object(Bucket=job.bucket, Key=key, Range=wanted)["Body"].read()
        return content

    return _in_parallel(get, [(found["Key"], found["Size"]) for found in listed])


def read_raw_with_our_store(job: Job) -> Iterator[Seen]:
    """The same through `Store.read_range`."""
    store = open_store(_uri(job))
    return _in_parallel(store.read_range, [(found.key, found.size) for found in store.list()])


def read_raw_into_files(job: Job) -> Iterator[Seen]:
    """And with what a cache on the disk costs: every range is written to a file of its own."""
    store, folder = open_store(_uri(job)), Path(job.cache)
    folder.mkdir(parents=True)

    def keep(key: str, offset: int, length: int) -> bytes:
        content = store.read_range(key, offset, length)
        (folder / f"{key.replace('/', '-')}-{offset}").write_bytes(content)
        return content

    return _in_parallel(keep, [(found.key, found.size) for found in store.list()])


def _in_parallel(get: Callable[[str, int, int], bytes], objects: list[tuple[str, int]]) -> Iterator[Seen]:
    ranges = [
        (key, offset, min(RANGE, size - offset))
        for key, size in objects
        if key.endswith(".tar")
        for offset in range(0, size, RANGE)
    ]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for content in pool.map(lambda wanted: get(*wanted), ranges):
            yield Seen(images=0, bytes=len(content))


def read_local_files(job: Job) -> Iterator[Seen]:
    """One file a sample, from this machine's page cache."""
    return load(_LocalFiles(job.folder), job)


class _LocalFiles(Dataset[bytes]):
    def __init__(self, folder: str) -> None:
        self._paths = sorted(Path(folder).rglob("*.jpg"), key=lambda path: path.name)

    def __getitem__(self, index: int) -> bytes:
        return self._paths[index].read_bytes()


def _uri(job: Job) -> str:
    return f"s3://{job.bucket}/{job.dataset}?endpoint_url={job.endpoint}&region=us-east-1"


READERS: dict[str, Reader] = {
    RAW_BOTO3: read_raw_with_boto3,
    RAW_STORE: read_raw_with_our_store,
    RAW_KEPT: read_raw_into_files,
    OURS: read_with_starling,
    LOCAL: read_local_files,
}

if __name__ == "__main__":
    serve(READERS[sys.argv[1]])
