"""Evaluation, cut over the virtual shards and summed along the tree like a training step."""

from __future__ import annotations

from collections.abc import Callable

import torch

from starling.trainer.comm import Comm
from starling.trainer.data.order import eval_batches
from starling.trainer.step import Stepper
from starling.trainer.task import Samples
from starling.trainer.tree import Scratch, TreeSum, owned_shards, padded

MIN_BATCH = 64
"""Evaluation batches hold at least so many samples; a constant, because the shape of a batch decides its bits."""


def evaluate(
    stepper: Stepper, samples: Samples, comm: Comm, alive: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Mean loss (under the task's `loss_name`) and mean scores over a split; equal at every world size.

    `alive` is called after every batch, so that an evaluation however long is not taken for a standstill.
    """
    training = stepper.training
    batch_size = max(MIN_BATCH, training.shard_batch)
    names: list[str] = []
    tree = TreeSum()
    stepper.model.eval()
    with torch.no_grad():
        for shard in owned_shards(comm.rank, comm.world_size, training.virtual_shards):
            sums = _shard_sums(stepper, samples, shard, batch_size, names, alive)
            width = padded(sums.numel(), comm.world_size)
            tree.add(torch.nn.functional.pad(sums, (0, width - sums.numel())).to(stepper.device), shard)
    stepper.model.train()
    count, loss, *scores = comm.reduce_tree(tree.blocks, training.virtual_shards, Scratch()).tolist()[: 2 + len(names)]
    return {stepper.task.loss_name: loss / count} | {n: s / count for n, s in zip(names, scores, strict=True)}


def _shard_sums(
    stepper: Stepper, samples: Samples, shard: int, batch_size: int, names: list[str], alive: Callable[[], None]
) -> torch.Tensor:
    """[2 + number of scores] float64: count, loss and scores of one virtual shard, summed in order of its batches."""
    training = stepper.training
    total = torch.zeros(0, dtype=torch.float64)
    for indices, weight_list in eval_batches(len(samples), training.virtual_shards, shard, batch_size):
        cpu_batch = samples.batch(indices, seed=training.seed, epoch=None)
        batch, weights = stepper.to_device(cpu_batch, torch.tensor(weight_list))
        scored = stepper.forward(batch)
        names[:] = sorted(scored.scores)
        columns = [torch.ones_like(weights), scored.losses, *(scored.scores[name] for name in names)]
        sums = torch.stack([(column.double() * weights.double()).sum() for column in columns]).cpu()
        total = sums if not total.numel() else total + sums
        alive()
    return total
