"""Which samples a step sees: pure functions of (seed, step, virtual shard), the same at every world size.

Steps are counted over the whole run, so one integer is the position in the data. Every epoch has ceil(n / global
batch) steps. The last one is filled up from the start of the same epoch's order with samples of weight 0: the
shape of a shard never changes, and every sample counts exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch

from starling.trainer.seeding import derive_seed


def steps_per_epoch(n: int, global_batch: int) -> int:
    """Steps that n samples take."""
    return -(-n // global_batch)


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The permutation of 0..n-1 in which an epoch visits its samples (int64)."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n, generator=generator)


def shard_samples(
    n: int, global_batch: int, shards: int, seed: int, step: int, shard: int
) -> tuple[list[int], list[float]]:
    """Indices and weights (1 or 0) of the global_batch / shards samples that one virtual shard sees in one step.

    `step` counts from the run's first step. Raises ValueError if the arguments describe no such shard.
    """
    _check(n, shards, shard)
    if global_batch % shards:
        raise ValueError(f"a global batch of {global_batch} cannot be cut into {shards} equal shards")
    epoch, step_in_epoch = divmod(step, steps_per_epoch(n, global_batch))
    order = _cached_order(n, seed, epoch)
    size = global_batch // shards
    first = step_in_epoch * global_batch + shard * size
    positions = torch.arange(first, first + size)
    return order[positions % n].tolist(), (positions < n).float().tolist()


def eval_batches(n: int, shards: int, shard: int, batch: int) -> Iterator[tuple[list[int], list[float]]]:
    """One virtual shard's part of a split, in batches of one shape; as many batches for every shard.

    The split is cut into contiguous, nearly equal ranges; what a range lacks is filled up with weight 0.
    """
    _check(n, shards, shard)
    first, end = n * shard // shards, n * (shard + 1) // shards
    batches = -(-_longest_range(n, shards) // batch)
    for start in range(first, first + batches * batch, batch):
        positions = range(start, start + batch)
        yield [p if p < end else 0 for p in positions], [float(p < end) for p in positions]


def _longest_range(n: int, shards: int) -> int:
    return -(-n // shards)


@lru_cache(maxsize=2)
def _cached_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    return epoch_order(n, seed, epoch)


def _check(n: int, shards: int, shard: int) -> None:
    if n < 1:
        raise ValueError("there are no samples")
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} is not one of {shards}")
