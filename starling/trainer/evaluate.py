"""Evaluation, cut over the virtual shards and summed along the tree like a training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import Lock

import torch

from starling.trainer.comm import Comm
from starling.trainer.data.feed import Feed, Wanted
from starling.trainer.data.order import eval_batches, eval_steps
from starling.trainer.step import Stepper
from starling.trainer.task import Samples
from starling.trainer.tree import Scratch, TreeSum, owned_shards, padded

MIN_BATCH = 64
MIN_BATCH_BYTES = MIN_BATCH * (3 * 512**2 + 4096)
"""Evaluation batches hold at least so many samples, or so much: colour images of up to 512x512 (and 4 KiB of
what belongs to them) come by 64, larger ones by fewer. The same everywhere: the shape of a batch decides its bits."""


def evaluate(
    stepper: Stepper,
    samples: Samples,
    comm: Comm,
    alive: Callable[[], None] = lambda: None,
    one_reader: Lock | None = None,
    *,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Mean loss (under the task's `loss_name`), mean scores and the task's own metrics over a split; equal at every
    world size.

    `alive` is called after every batch, so that an evaluation however long is not taken for a standstill. Whoever else
    reads samples meanwhile holds `one_reader` while it does. `batch_size`: None is what training uses, and what makes
    the bits comparable.
    """
    training = stepper.training
    if batch_size is None:
        with one_reader or nullcontext():
            batch_size = max(_least_batch(samples, training.seed), training.shard_batch)
    names: list[str] = []
    outputs = _Outputs()
    tree = TreeSum()
    passes, virtual = stepper.passes(), training.virtual_shards
    wanted = (
        Wanted(shard, indices, weights, None)
        for shard, _ in passes
        for indices, weights in eval_batches(len(samples), virtual, shard, batch_size)
    )
    batches = eval_steps(len(samples), virtual, batch_size)
    stepper.model.eval()
    with torch.no_grad(), Feed(samples, wanted, seed=training.seed, turn=one_reader) as feed:
        for shard, counts in passes:
            outputs.keep = counts
            sums = _shard_sums(stepper, feed, shard, batches, names, outputs, alive)
            if not counts:
                continue
            width = padded(sums.numel(), comm.world_size)
            tree.add(torch.nn.functional.pad(sums, (0, width - sums.numel())).to(stepper.device), shard)
    count, loss, *scores = comm.reduce_tree(tree.blocks, training.virtual_shards, Scratch()).tolist()[: 2 + len(names)]
    means = {stepper.task.loss_name: loss / count} | {n: s / count for n, s in zip(names, scores, strict=True)}
    whole = outputs.gathered(comm, len(samples), virtual)
    return means | (stepper.task.summarise(whole) if whole else {})


def _least_batch(samples: Samples, seed: int) -> int:
    """How many of these samples are worth a batch. Measured on the first one by every rank: all must find the same."""
    one = samples.batch([0], seed=seed, epoch=None)
    return max(1, min(MIN_BATCH, MIN_BATCH_BYTES // max(1, sum(tensor.nbytes for tensor in one.values()))))


class _Outputs:
    """What the task's own metrics need of every sample: this rank's, then all ranks'."""

    def __init__(self) -> None:
        self.keep = True
        """Whether the pass counts."""
        self._rows: dict[str, list[torch.Tensor]] = {}

    def add(self, outputs: dict[str, torch.Tensor], weights: torch.Tensor) -> None:
        """Take the samples of a batch that count."""
        if self.keep:
            for name, values in outputs.items():
                self._rows.setdefault(name, []).append(values.detach()[weights > 0].cpu())

    def gathered(self, comm: Comm, count: int, shards: int) -> dict[str, torch.Tensor]:
        """Name -> [count, ...], in the order of the samples, on every rank: a rank's virtual shards are a stretch of
        them."""
        whole: dict[str, torch.Tensor] = {}
        for name in sorted(self._rows):
            mine = torch.cat(self._rows.pop(name)).contiguous()
            whole[name] = mine.new_empty((count, *mine.shape[1:]))
            for rank in range(comm.world_size):
                owned = owned_shards(rank, comm.world_size, shards)
                stretch = whole[name][count * owned.start // shards : count * owned.stop // shards]
                if rank == comm.rank:
                    stretch.copy_(mine)
                comm.broadcast_tensor(stretch, rank)
        return whole


def _shard_sums(
    stepper: Stepper,
    feed: Feed,
    shard: int,
    batches: int,
    names: list[str],
    outputs: _Outputs,
    alive: Callable[[], None],
) -> torch.Tensor:
    """[2 + number of scores] float64: count, loss and scores of one virtual shard, summed in order of its batches."""
    total = torch.zeros(0, dtype=torch.float64)
    for _ in range(batches):
        batch, weights = stepper.to_device(*feed.take(shard))
        scored = stepper.forward(batch)
        names[:] = sorted(scored.scores)
        outputs.add(scored.outputs, weights)
        columns = [torch.ones_like(weights), scored.losses, *(scored.scores[name] for name in names)]
        sums = torch.stack([(column.double() * weights.double()).sum() for column in columns]).cpu()
        total = sums if not total.numel() else total + sums
        alive()
    return total
