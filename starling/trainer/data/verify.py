"""Reads a whole dataset and says what of it is damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from isal.isal_zlib import crc32

from starling.infra.errors import ObjectNotFound
from starling.infra.store import Store
from starling.infra.store.anywhere import open_storage
from starling.trainer.data.decode import inspect
from starling.trainer.data.index import DatasetIndex, DatasetPlace, Sample, Shard, load_index, locate
from starling.trainer.data.preparing_progress import Pace, Progress
from starling.trainer.data.rendition import why_unusable
from starling.trainer.data.worker_processes import worker_processes

RANGE = 8 * 2**20
"""Bytes read at a time."""
WORTH_PROCESSES = 16 * 2**20
"""Bytes of a dataset for which starting processes pays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    shard: str
    key: str | None
    """The image; None: the shard as a whole."""
    problem: str


def verify(
    store: Store, dataset: str, *, workers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Check every shard's size and SHA-256, and every image's CRC-32 and that it decodes.

    Returns what `starling data verify --json` prints; `damaged` is empty if all is well. Raises the store's errors
    for anything but damage, and UsageError if there is no such dataset.
    """
    index, place = load_index(store, dataset), locate(store, dataset)
    jobs = list(_jobs(index))
    total = sum(len(samples) for _, samples in jobs)
    if workers is None:
        large = sum(shard.size for shard, _ in jobs) > WORTH_PROCESSES
        workers = min(os.cpu_count() or 1, len(jobs)) if large else 1
    pace = Pace(total, "images", progress or (lambda line: None))
    found: list[Damage] = []
    for (_, samples), damage in zip(jobs, _results(place, jobs, workers), strict=True):
        found += damage
        pace.count(len(samples))
    return {
        "dataset": index.name,
        "uri": place.uri,
        "shards": len(jobs),
        "images": total,
        "bytes": sum(shard.size for shard, _ in jobs),
        "damaged": [{"shard": one.shard, "key": one.key, "problem": one.problem} for one in found],
        "intact": not found,
    }


_Job = tuple[Shard, list[Sample]]


def _jobs(index: DatasetIndex) -> Iterator[_Job]:
    for split in index.splits.values():
        by_shard: list[list[Sample]] = [[] for _ in split.shards]
        for sample in split.samples:
            by_shard[sample.shard].append(sample)
        yield from zip(split.shards, by_shard, strict=True)


def _results(place: DatasetPlace, jobs: list[_Job], workers: int) -> Iterator[list[Damage]]:
    if workers == 1:
        yield from (check_shard(place, *job) for job in jobs)
        return
    with worker_processes(workers) as pool:
        futures = [pool.submit(_check_there, place.store.uri, place.prefix, *job) for job in jobs]
        for future in futures:
            yield future.result()


def _check_there(store_uri: str, prefix: str, shard: Shard, samples: list[Sample]) -> list[Damage]:
    """In a worker: it opens the store itself, since clients cannot be sent."""
    return check_shard(DatasetPlace(store=open_storage(store_uri), prefix=prefix), shard, samples)


def check_shard(place: DatasetPlace, shard: Shard, samples: list[Sample]) -> list[Damage]:
    """All that is wrong with one shard."""
    try:
        size = place.store.stat(place.shard_key(shard)).size
        there = min(size, shard.size)  # what the index says may be as wrong as what the shard holds
        data = b"".join(place.read_shard(shard, at, min(RANGE, there - at)) for at in range(0, there, RANGE))
    except ObjectNotFound:
        return [Damage(shard=shard.key, key=None, problem=f"it is missing, with {len(samples)} images")]
    if size != shard.size:
        problem = f"it has {size} bytes, and should have {shard.size}"
        return [Damage(shard=shard.key, key=None, problem=problem), *_images(shard, samples, data)]
    if hashlib.sha256(data).hexdigest() == shard.sha256:
        return list(_images(shard, samples, data))
    problem = "its content does not match its SHA-256"
    return [Damage(shard=shard.key, key=None, problem=problem), *_images(shard, samples, data)]


def _images(shard: Shard, samples: list[Sample], data: bytes) -> Iterator[Damage]:
    for sample in samples:
        image = data[sample.offset : sample.offset + sample.length]
        if len(image) < sample.length:
            yield Damage(shard=shard.key, key=sample.key, problem="it lies behind the end of the shard")
        elif crc32(image) != sample.crc32:
            yield Damage(shard=shard.key, key=sample.key, problem="its bytes do not match their CRC-32")
        else:
            try:
                inspect(image)
            except Exception as error:  # Pillow raises almost anything on damaged input
                yield Damage(shard=shard.key, key=sample.key, problem=f"cannot be decoded: {why_unusable(error)}")
