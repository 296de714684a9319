"""Random access to the images of a prepared split: from the node's shard cache, through Pillow, as uint8 tensors."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from threading import Lock
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch

from starling.infra.errors import ObjectCorrupt, UsageError
from starling.trainer.data.augment import Augment
from starling.trainer.data.cache import fetch_shards, refetch_shard
from starling.trainer.data.decode import decode
from starling.trainer.data.index import DatasetIndex, DatasetPlace, Sample
from starling.trainer.task import Batch

Pixels = npt.NDArray[np.uint8]

MEMORY_BYTES = 512 * 2**20
"""Splits whose pixels fit in here are decoded once and kept; larger ones are decoded anew each time."""

INLINE_PIXELS = 96 * 96
"""Images up to this size decode faster than they could be handed to another thread."""


class ShardSamples:
    """One split as `Samples`: batches of {"image": uint8 [b, channels, height, width], "label": int64 [b]}.

    All shards are in the node's cache once it is constructed. Thread-safe. Raises UsageError if the dataset has no
    such split, or if its images differ in size and no `image_size` is given.
    """

    def __init__(
        self,
        place: DatasetPlace,
        index: DatasetIndex,
        split: str,
        cache_dir: Path,
        *,
        image_size: tuple[int, int] | None = None,
        augment: Augment | None = None,
        memory_bytes: int = MEMORY_BYTES,
        threads: int | None = None,
    ) -> None:
        """`image_size` is (height, width); `threads` decode at once (None: as many as seem useful)."""
        if split not in index.splits:
            raise UsageError(f"dataset {index.name} has no split {split!r}; it has {', '.join(sorted(index.splits))}")
        self._size = _image_size(index, image_size)
        self._mode = index.image.mode
        self._shape = (index.image.channels, *self._size)
        self._samples = index.splits[split].samples
        self._labels = torch.tensor([sample.label for sample in self._samples])
        self._augment = augment
        self._bytes = _ShardBytes(place, index, split, cache_dir / "shards")
        self._kept = _Kept.of(len(self._samples), self._shape, memory_bytes)
        self._pool = _pool(self._size, threads)

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        pixels = self._decode(indices) if self._kept is None else self._kept.take(indices, self._decode)
        images = torch.from_numpy(pixels)
        if self._augment is not None and epoch is not None:
            images = self._augment.apply(images, indices, seed=seed, epoch=epoch)
        return {"image": images, "label": self._labels[list(indices)]}

    def _decode(self, indices: Sequence[int]) -> Pixels:
        pixels = np.empty((len(indices), *self._shape), dtype=np.uint8)
        decoded = map(self._decode_one, indices) if self._pool is None else self._pool.map(self._decode_one, indices)
        for position, image in enumerate(decoded):
            pixels[position] = image
        return pixels

    def _decode_one(self, index: int) -> Pixels:
        sample = self._samples[index]
        data = self._bytes.of(sample)
        try:
            return decode(data, self._mode, self._size)
        except (OSError, SyntaxError, ValueError) as error:
            # prepare decodes every image, so these bytes come from somebody who did not use it
            raise ObjectCorrupt(f"{sample.key} of the dataset is no image that can be decoded: {error}") from error


class _Kept:
    """Decoded images. Two threads may decode the same one; they write the same bytes."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._pixels = np.empty((count, *shape), dtype=np.uint8)
        self._known = np.zeros(count, dtype=np.bool_)

    @classmethod
    def of(cls, count: int, shape: tuple[int, int, int], limit: int) -> _Kept | None:
        return cls(count, shape) if count * prod(shape) <= limit else None

    def take(self, indices: Sequence[int], decode_all: Callable[[Sequence[int]], Pixels]) -> Pixels:
        """Copies of these images; those never seen before are decoded first."""
        if missing := [index for index in indices if not self._known[index]]:
            self._pixels[missing] = decode_all(missing)
            self._known[missing] = True
        return self._pixels[list(indices)]


class _ShardBytes:
    """The shards of a split, mapped into memory. Every read is checked; a damaged copy is fetched again, once."""

    def __init__(self, place: DatasetPlace, index: DatasetIndex, split: str, folder: Path) -> None:
        self._place = place
        self._shards = index.splits[split].shards
        self._folder = folder
        self._lock = Lock()
        self._maps = [_map(path) for path in fetch_shards(place, self._shards, folder)]

    def of(self, sample: Sample) -> bytes:
        data = self._read(sample)
        if crc32(data) != sample.crc32:
            with self._lock:
                self._maps[sample.shard] = _map(refetch_shard(self._place, self._shards[sample.shard], self._folder))
            data = self._read(sample)
        if crc32(data) != sample.crc32:
            key = self._place.shard_key(self._shards[sample.shard])
            raise ObjectCorrupt(f"{sample.key} in {key} of {self._place.store.uri} does not match the dataset's index")
        return data

    def _read(self, sample: Sample) -> bytes:
        return self._maps[sample.shard][sample.offset : sample.offset + sample.length]


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _image_size(index: DatasetIndex, wanted: tuple[int, int] | None) -> tuple[int, int]:
    if wanted is not None:
        return wanted
    if index.image.height is None or index.image.width is None:
        raise UsageError(
            f"the images of dataset {index.name} differ in size: set image_size (pixels) in the task's options"
        )
    return index.image.height, index.image.width


def _pool(size: tuple[int, int], threads: int | None) -> ThreadPoolExecutor | None:
    if threads is None:
        threads = 0 if size[0] * size[1] <= INLINE_PIXELS else min(4, os.cpu_count() or 1)
    return ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None
