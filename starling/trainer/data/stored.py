"""The files of a split's samples as they are stored. Every read is checked; a damaged chunk is fetched again, once."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
from isal.isal_zlib import crc32

from starling.infra.errors import ObjectCorrupt
from starling.infra.store.streaming import stream_range
from starling.trainer.data.cache import ChunkCache, Held
from starling.trainer.data.chunks import Integers, Table
from starling.trainer.data.downloads import Downloads
from starling.trainer.data.index import DatasetPlace, Split

FIRST_CHUNKS = 16
"""If what is needed first lies in more chunks than that, its samples are read by themselves."""
FIRST_BYTES = 32 << 20
"""But not if they are more than that, because their chunks are read as well."""


@dataclass(frozen=True, slots=True)
class InHand:
    """What a batch is read from."""

    chunks: dict[int, Held]
    alone: dict[int, Future[bytearray]]
    """Sample -> its file, where it is read by itself."""


class StoredFiles:
    """Samples are called by their position in `chosen`, which holds their numbers in the split. Thread-safe, except for
    `expect`."""

    def __init__(self, place: DatasetPlace, split: Split, table: Table, chosen: Integers, cache: ChunkCache) -> None:
        self._place, self._split, self._chosen = place, split, chosen
        chunk_of = table.chunk[chosen]
        starts = np.array([chunk.start for chunk in table.chunks], np.int64)
        begin = table.offset[chosen] - starts[chunk_of]
        columns = (chunk_of, begin, begin + table.length[chosen], table.crc32[chosen])
        # A list, because single rows are taken from it, which arrays are slow at.
        self._rows = list(zip(*(column.tolist() for column in columns), strict=True))
        self._downloads = Downloads(place, table.chunks, cache)
        self._first: dict[int, Future[bytearray]] = {}
        self._lock = threading.Lock()
        self._expected = 0
        self._read = 0

    def expect(self, samples: Sequence[int], known: Set[int] = frozenset()) -> None:
        """These come next, after what was expected before; of those that are `known` already no file is needed. What
        the first call names is hurried."""
        first_use: dict[int, int] = {}
        for position, sample in enumerate(samples, start=self._expected):
            if sample not in known:
                first_use.setdefault(self._rows[sample][0], position)
        if self._expected == 0:
            self._hurry([sample for sample in samples if sample not in known], set(first_use))
        self._expected += len(samples)
        self._downloads.expect([(position, chunk) for chunk, position in first_use.items()])

    def hold(self, samples: Sequence[int]) -> InHand:
        """Wait until the chunks in which these lie are here. Raises the store's errors."""
        with self._lock:
            alone = {sample: self._first.pop(sample) for sample in {*samples} & self._first.keys()}
        chunks = self._downloads.need({self._rows[sample][0] for sample in samples if sample not in alone})
        return InHand(chunks, alone)

    def passed(self, count: int) -> None:
        """So many more of what was expected are done with, known ones included."""
        with self._lock:
            self._read += count
        self._downloads.reached(self._read)

    def of(self, sample: int, in_hand: InHand) -> memoryview:
        """A sample's file. Raises the store's errors, and ObjectCorrupt if it has not got what the index says."""
        chunk, begin, end, checksum = self._rows[sample]
        alone = in_hand.alone.get(sample)
        data = memoryview(alone.result()) if alone else in_hand.chunks[chunk].data[begin:end]
        if crc32(data) == checksum:
            return data
        again = (
            self._read_alone(sample) if alone else self._downloads.mend(chunk, in_hand.chunks[chunk]).data[begin:end]
        )
        if crc32(again) != checksum:
            found = self._split.samples[self._chosen[sample]]
            key = self._place.shard_key(self._split.shards[found.shard])
            raise ObjectCorrupt(f"{found.key} in {key} of {self._place.store.uri} does not match the dataset's index")
        return memoryview(again)

    def close(self) -> None:
        """Fetch nothing any more."""
        self._downloads.close()

    def _hurry(self, samples: Sequence[int], chunks: set[int]) -> None:
        """Have the samples read by themselves if their chunks would take long."""
        missing = {chunk for chunk in chunks if not self._downloads.has(chunk)}
        wanted = [sample for sample in dict.fromkeys(samples) if self._rows[sample][0] in missing]
        size = sum(end - begin for _, begin, end, _ in map(self._rows.__getitem__, wanted))
        if len(missing) <= FIRST_CHUNKS or size > FIRST_BYTES:
            return
        for sample in wanted:
            self._first[sample] = self._downloads.soon(partial(self._read_alone, sample))

    def _read_alone(self, number: int) -> bytearray:
        sample = self._split.samples[self._chosen[number]]
        key = self._place.shard_key(self._split.shards[sample.shard])
        data = bytearray()
        stream_range(self._place.store, key, sample.offset, sample.length, data.extend)
        return data
