"""A split as columns, and its shards cut into chunks: what is fetched, cached and evicted as one.

A chunk is about 8 MiB of a shard, from the first byte of a sample to the last of another: every sample lies in just
one. 8 MiB is what object stores serve fastest in one request, whatever the latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from starling.infra.errors import ObjectCorrupt
from starling.trainer.data.index import Split

CHUNK_BYTES = 8 << 20
"""A chunk is longer by one sample at most."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes [start, end) of a shard."""

    key: str
    """The shard's, relative to the dataset's folder."""
    sha256: str
    """The shard's."""
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def name(self) -> str:
        """Of the file in the cache. It tells the content whatever the size that chunks have one day."""
        return f"{self.sha256}/{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class Table:
    """The samples of a split, column by column; each is [n]."""

    shard: Integers
    offset: Integers
    length: Integers
    label: Integers
    crc32: Integers
    chunk: Integers
    """Position in `chunks`."""
    chunks: list[Chunk]

    def __len__(self) -> int:
        return len(self.shard)


def tabulate(split: Split, chunk_bytes: int = CHUNK_BYTES) -> Table:
    """Raises ObjectCorrupt if a sample does not lie within its shard."""
    columns = zip(*split.samples, strict=True) if split.samples else [()] * 5
    shard, offset, length, label, crc32 = (np.array(column, np.int64) for column in islice(columns, 5))
    _check(split, shard, offset, length)
    pieces = shard * (2**40) + offset // chunk_bytes
    found, chunk = np.unique(pieces, return_inverse=True)
    start, end = np.full(len(found), 2**62), np.zeros(len(found), np.int64)
    np.minimum.at(start, chunk, offset)
    np.maximum.at(end, chunk, offset + length)
    owners = [split.shards[number] for number in found // 2**40]
    chunks = [
        Chunk(owner.key, owner.sha256, first, last)
        for owner, first, last in zip(owners, start.tolist(), end.tolist(), strict=True)
    ]
    return Table(shard, offset, length, label, crc32, chunk.astype(np.int64), chunks)


def _check(split: Split, shard: Integers, offset: Integers, length: Integers) -> None:
    sizes = np.array([each.size for each in split.shards] + [-1], np.int64)
    known = (shard >= 0) & (shard < len(split.shards))
    wrong = ~known | (offset < 0) | (length < 0) | (offset + length > sizes[np.where(known, shard, -1)])
    if wrong.any():
        sample = split.samples[int(wrong.argmax())]
        raise ObjectCorrupt(f"the dataset's index is damaged: {sample.key} does not lie within shard {sample.shard}")
