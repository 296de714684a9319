"""Which samples a step sees: pure functions of (seed, epoch, step, virtual shard), the same at every world size.

An epoch's order is a list of n entries. Virtual shard v of V goes through the entries [n*v//V, n*(v+1)//V) of it, so a
rank, which owns neighbouring shards, reads only its own stretch of the data. Every epoch has ceil(n / global batch)
steps; a shard that has come to its end is filled up with samples of weight 0: the shape of a batch never changes, and
every entry counts exactly once an epoch. The position in the data is one integer, the number of steps, and any of them
can be begun with at once.

An entry is `sample + n * occurrence`: where samples are drawn more than once an epoch, each time with other draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch

from starling.infra.errors import UsageError
from starling.trainer.seeding import derive_seed
from starling.trainer.task import Samples

BLOCK_BYTES = 64 << 20
"""Of a block within which `block_order` shuffles."""


@runtime_checkable
class Ordered(Protocol):
    """Samples that say in which order they are best visited."""

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """The entries of an epoch, int64 [len(samples)]; a pure function."""
        ...


def steps_per_epoch(n: int, global_batch: int) -> int:
    """Steps that n samples take."""
    return -(-n // global_batch)


def epoch_order(samples: Samples, seed: int, epoch: int) -> torch.Tensor:
    """The entries of an epoch, int64 [n]: the samples' own order, or else a plain permutation. Raises UsageError for an
    order of another length: steps and means are counted by that of the samples."""
    if not isinstance(samples, Ordered):
        return plain_order(len(samples), seed, epoch)
    order = samples.order(seed, epoch)
    if order.shape != (len(samples),):
        raise UsageError(
            f"{type(samples).__name__}.order gave entries of shape {list(order.shape)} for epoch {epoch}; "
            f"there must be one for each of the {len(samples)} samples"
        )
    return order


def plain_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of 0..n-1 (int64), every one of which is as likely."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n, generator=generator)


def block_order(
    files: Sequence[int] | torch.Tensor,
    sizes: Sequence[int] | torch.Tensor,
    seed: int,
    epoch: int,
    block_bytes: int = BLOCK_BYTES,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """A shuffle that can be read from storage: `files` [n] says in which file each sample lies, `sizes` [n] its bytes.

    The files are permuted and their samples laid out one after the other, each as often as `counts` [n] says (once
    without it). That list is cut into blocks of `block_bytes` bytes of different samples, and each block is shuffled.
    Returns int64 [sum of counts].

    How good it is depends on what lies beside each other in the files. `prepare` puts samples there in the order of a
    hash of their names, so a block is a random sample of the split, drawn without putting back, and batches are made up
    as those of a plain permutation are. What is left: two samples of one file more often meet in a batch than two
    others, and occurrences of one sample lie within one block. A batch is made of as many blocks as there are virtual
    shards. docs/data.md has numbers.
    """
    shards, bytes_of = torch.as_tensor(files, dtype=torch.int64), torch.as_tensor(sizes, dtype=torch.int64)
    n = len(shards)
    generator = torch.Generator().manual_seed(derive_seed("blocks", seed, epoch))
    names, file_of = shards.unique(return_inverse=True)
    rank = torch.randperm(len(names), generator=generator).argsort()
    laid = rank[file_of].argsort(stable=True)
    occurrence = torch.zeros(n, dtype=torch.int64)
    if counts is not None:
        times = counts[laid]
        first = times.cumsum(0) - times
        laid = laid.repeat_interleave(times)
        occurrence = torch.arange(len(laid)) - first.repeat_interleave(times)
    new_bytes = torch.where(occurrence == 0, bytes_of[laid], 0)
    block = (new_bytes.cumsum(0) - new_bytes[:1].sum()) // block_bytes
    mixed = torch.randperm(len(laid), generator=generator)
    mixed = mixed[block[mixed].argsort(stable=True)]
    return laid[mixed] + n * occurrence[mixed]


def class_counts(labels: Sequence[int] | torch.Tensor, seed: int, epoch: int, strength: float = 1.0) -> torch.Tensor:
    """How often each sample is taken in an epoch that balances its classes; int64 [n], their sum is n.

    Class c of n_c samples is to appear t_c times: between n_c (`strength` 0) and equally often as the others (1). Each
    of its samples is taken t_c // n_c times, and t_c % n_c of them, others in every epoch, once more.
    """
    classes, label_of, sizes = torch.as_tensor(labels).unique(return_inverse=True, return_counts=True)
    counts = torch.empty(len(label_of), dtype=torch.int64)
    for number, target in enumerate(_targets(sizes.tolist(), strength)):
        members = (label_of == number).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed("resample", seed, epoch, int(classes[number])))
        counts[members] = target // len(members)
        more = torch.randperm(len(members), generator=generator)[: target % len(members)]
        counts[members[more]] += 1
    return counts


def _targets(sizes: list[int], strength: float) -> list[int]:
    """Rounded down, and the rest to those that lost most by it (the first of equals): the sum stays what it was."""
    n = sum(sizes)
    exact = [(1 - strength) * size + strength * n / len(sizes) for size in sizes]
    targets = [int(value) for value in exact]
    lost = sorted(range(len(sizes)), key=lambda number: targets[number] - exact[number])
    for number in lost[: n - sum(targets)]:
        targets[number] += 1
    return targets


def shard_samples(
    order: torch.Tensor, global_batch: int, shards: int, step_in_epoch: int, shard: int
) -> tuple[list[int], list[float]]:
    """Entries and weights (1 or 0) of the global_batch / shards samples that one virtual shard sees in one step.

    The filling is what the shard saw in the step before, which costs no reading, or else its own samples once more.
    Raises ValueError if the arguments describe no such shard.
    """
    n = len(order)
    _check(n, shards, shard)
    if global_batch % shards:
        raise ValueError(f"a global batch of {global_batch} cannot be cut into {shards} equal shards")
    size = global_batch // shards
    first, end = n * shard // shards, n * (shard + 1) // shards
    positions = torch.arange(size) + (first + step_in_epoch * size)
    counting = positions < end
    filling = positions - size if end - first >= size else first + (positions - first) % max(1, end - first)
    return order[torch.where(counting, positions, filling) % n].tolist(), counting.float().tolist()


def eval_batches(n: int, shards: int, shard: int, batch: int) -> Iterator[tuple[list[int], list[float]]]:
    """One virtual shard's part of a split, in batches of one shape; as many batches for every shard.

    The split is cut into contiguous, nearly equal ranges; what a range lacks is filled up with its last sample, at
    weight 0: that costs no further reading.
    """
    _check(n, shards, shard)
    first, end = n * shard // shards, n * (shard + 1) // shards
    for start in range(first, first + eval_steps(n, shards, batch) * batch, batch):
        positions = range(start, start + batch)
        yield [min(p, max(first, end - 1)) for p in positions], [float(p < end) for p in positions]


def eval_steps(n: int, shards: int, batch: int) -> int:
    """Batches that `eval_batches` gives for each shard."""
    longest = -(-n // shards)
    return -(-longest // batch)


class EpochOrders:
    """The orders of the epochs of one run, each made once. Not thread-safe."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.of = lru_cache(maxsize=2)(lambda epoch: epoch_order(samples, seed, epoch))
        """The order of an epoch; not to be written to."""


def _check(n: int, shards: int, shard: int) -> None:
    if n < 1:
        raise ValueError("there are no samples")
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} is not one of {shards}")
