"""Random access to the images of a prepared split: chunks from the node's cache or the store, decoded to uint8 tensors.

To read for something else than the loop (a benchmark, a notebook), in the order of an epoch:

    samples = ShardSamples(locate(store, "pets"), load_index(store, "pets"), "train", Path("cache"))
    entries = samples.order(seed=0, epoch=0).tolist()
    samples.expect(entries)                                      # what comes, so that it can be fetched ahead
    for start in range(0, len(entries), 32):
        files = samples.read_bytes(entries[start : start + 32])  # as stored, checked, without a copy; or decoded:
        batch = samples.batch(entries[start : start + 32], seed=0, epoch=0)
    samples.close()

`feed.Feed` does the same in the background.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch

from starling.infra.errors import ObjectCorrupt, UsageError
from starling.trainer.data.buffers import Buffers
from starling.trainer.data.cache import ChunkCache
from starling.trainer.data.chunks import tabulate
from starling.trainer.data.decode import Pixels, decode_into
from starling.trainer.data.index import DatasetIndex, DatasetPlace
from starling.trainer.data.order import block_order
from starling.trainer.data.stored import InHand, StoredFiles
from starling.trainer.task import Batch

Counts = Callable[[int, int], torch.Tensor]
"""(seed, epoch) -> how often each sample is taken in that epoch, int64 [n]; their sum is n."""

Draws = Callable[[Sequence[int], int, int], dict[str, torch.Tensor]]
"""(entries, seed, epoch) -> what augmentation is to do with each of them, name -> [b, ...]."""

MEMORY_BYTES = 512 << 20
"""Splits whose pixels fit in here are decoded once and kept; larger ones are decoded anew each time."""
INLINE_PIXELS = 96 * 96
"""Images up to this size decode faster than they could be handed to another thread."""


class ShardSamples:
    """One split as `Samples`: batches of {"image": uint8 [b, channels, height, width], "label": int64 [b]} and draws.

    Images lie in memory with their channels together (channels last). Nothing is downloaded before it is asked for or
    expected. Thread-safe, except for `expect`.
    """

    def __init__(
        self,
        place: DatasetPlace,
        index: DatasetIndex,
        split: str,
        cache_dir: Path,
        *,
        image_size: tuple[int, int] | None = None,
        cache_bytes: int | None = None,
        subset: Sequence[int] | None = None,
        labels_of: Mapping[int, int] | None = None,
        counts: Counts | None = None,
        draws: Draws | None = None,
        threads: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """
        Args:
            image_size: (height, width) to scale to; None: as they are.
            cache_bytes: of the disk for chunks of all datasets of this node; None: half of what is free.
            subset: numbers of samples in the split; entries then count within it.
            labels_of: label in the index -> label in batches, for every label there is in the subset.
            counts: how often samples are taken in an epoch; None: once each.
            draws: what is added to the batches of training.
            threads: decode at once; None: as many as seem useful.
            memory_bytes: decoded images are kept if all of them fit in here.

        Raises:
            UsageError: there is no such split, or its images differ in size and no `image_size` is given.
            ObjectCorrupt: the index contradicts itself.
        """
        if split not in index.splits:
            raise UsageError(f"dataset {index.name} has no split {split!r}; it has {', '.join(sorted(index.splits))}")
        self._size = _image_size(index, image_size)
        self._shape = (*self._size, index.image.channels)
        self._samples = index.splits[split].samples
        table = tabulate(index.splits[split])
        chosen = np.arange(len(table)) if subset is None else np.array(subset, np.int64)
        self._numbers: list[int] = chosen.tolist()
        self._labels = _labels(table.label[chosen].tolist(), labels_of)
        self._files, self._lengths = torch.from_numpy(table.shard[chosen]), torch.from_numpy(table.length[chosen])
        self._counts, self._draws = counts, draws
        self._bytes = StoredFiles(
            place, index.splits[split], table, chosen, ChunkCache(cache_dir / "shards", cache_bytes)
        )
        self._kept = _Kept.of(len(chosen), self._shape, memory_bytes)
        self._buffers = Buffers()
        self._pool = _pool(self._size, threads)

    def __len__(self) -> int:
        return len(self._numbers)

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """The entries of an epoch: a block shuffle, see `order.block_order`."""
        counts = self._counts(seed, epoch) if self._counts else None
        return block_order(self._files, self._lengths, seed, epoch, counts=counts)

    def expect(self, entries: Sequence[int]) -> None:
        """Say what will be asked for next, after what was said before: it is fetched ahead, as far as is allowed."""
        indices = self._indices(entries)
        self._bytes.expect(indices, known=self._kept.among(indices) if self._kept else set())

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        """The batch of these entries. Raises ObjectCorrupt, and the store's errors."""
        numbers = self._indices(indices)
        images = self._decoded(numbers) if self._kept is None else self._kept.take(numbers, self._decoded)
        self._bytes.passed(len(numbers))
        drawn = self._draws(indices, seed, epoch) if self._draws is not None and epoch is not None else {}
        return {"image": images.permute(0, 3, 1, 2), "label": self._labels[numbers], **drawn}

    def read_bytes(self, entries: Sequence[int]) -> list[memoryview]:
        """The files of these entries as they are stored, checked; views of the cache, good for as long as they exist.
        Raises ObjectCorrupt, and the store's errors."""
        indices = self._indices(entries)
        in_hand = self._bytes.hold(indices)
        files = [self._bytes.of(index, in_hand) for index in indices]
        self._bytes.passed(len(files))
        return files

    def key(self, index: int) -> str:
        """The path of a sample's image in the source."""
        return self._samples[self._numbers[index]].key

    def patient(self, index: int) -> int:
        """A number that all images of a sample's patient share."""
        return self._samples[self._numbers[index]].patient

    def close(self) -> None:
        """Fetch nothing any more."""
        self._bytes.close()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _indices(self, entries: Sequence[int]) -> list[int]:
        n = len(self._numbers)
        return [entry % n for entry in entries]

    def _decoded(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 [b, height, width, channels]."""
        array, tensor = self._buffers.take((len(indices), *self._shape))
        decode_one = partial(self._decode_one, self._bytes.hold(indices))
        for _ in (map if self._pool is None else self._pool.map)(decode_one, indices, array):
            pass
        return tensor

    def _decode_one(self, in_hand: InHand, index: int, target: Pixels) -> None:
        data = self._bytes.of(index, in_hand)
        try:
            decode_into(data, target)
        except (OSError, SyntaxError, ValueError) as error:
            # prepare decodes every image, so these bytes come from somebody who did not use it
            raise ObjectCorrupt(f"{self.key(index)} of the dataset is no image that can be decoded: {error}") from error


class _Kept:
    """Decoded images. Two threads may decode the same one; they write the same bytes."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._pixels = torch.empty((count, *shape), dtype=torch.uint8)
        self._known = np.zeros(count, dtype=np.bool_)

    @classmethod
    def of(cls, count: int, shape: tuple[int, int, int], limit: int) -> _Kept | None:
        return cls(count, shape) if count * prod(shape) <= limit else None

    def missing(self, indices: Sequence[int]) -> list[int]:
        return [index for index in indices if not self._known[index]]

    def among(self, indices: Sequence[int]) -> set[int]:
        return {*indices}.difference(self.missing(indices))

    def take(self, indices: Sequence[int], decode_all: Callable[[Sequence[int]], torch.Tensor]) -> torch.Tensor:
        """Copies of these images; those never seen before are decoded first."""
        if missing := self.missing(indices):
            self._pixels[missing] = decode_all(missing)
            self._known[missing] = True
        return self._pixels[list(indices)]


def _labels(stored: list[int], labels_of: Mapping[int, int] | None) -> torch.Tensor:
    if labels_of is None:
        return torch.tensor(stored, dtype=torch.int64)
    return torch.tensor([labels_of[label] for label in stored], dtype=torch.int64)


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
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        threads = 0 if size[0] * size[1] <= INLINE_PIXELS else min(16, max(1, (os.cpu_count() or 1) // ranks))
    return ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None
