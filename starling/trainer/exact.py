"""One training step whose sum over the batch has the same bits at every world size: the piece that can be used alone.

reduction = ExactReduction(model, comm, shards=8)
for shard in reduction.shards():            # those of this rank, one after the other
    ...                                     # seed torch from (step, shard), forward
    reduction.backward(loss)                # what this shard adds to the loss of the whole batch
reduction.finish()                          # all ranks now hold the same gradients and statistics
optimizer.step()
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from starling.trainer.comm import Comm
from starling.trainer.gradients import ShardVector
from starling.trainer.tree import Scratch, TreeSum, owned_shards


class ExactReduction:
    """Sums gradients, running statistics, losses and scores of `shards` virtual shards along the fixed tree.

    Raises:
        UsageError: a parameter or float buffer is not float32.
    """

    def __init__(self, model: torch.nn.Module, comm: Comm, shards: int) -> None:
        self._comm = comm
        self._shards = shards
        self._tree = TreeSum()
        self._scratch = Scratch()
        self._vector = ShardVector(model, comm.world_size, shards)
        self._shard = -1

    def shards(self) -> Iterator[int]:
        """Begin a step: the virtual shards of this rank. Each must end with `backward`."""
        self._tree.clear()
        self._vector.begin_step()
        for shard in owned_shards(self._comm.rank, self._comm.world_size, self._shards):
            self._shard = shard
            self._vector.begin_shard()
            yield shard

    def backward(
        self,
        loss: torch.Tensor,
        loss_sum: torch.Tensor | None = None,
        score_sums: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Differentiate what this shard adds to the loss of the whole batch (so: its sum over the shard's samples,
        divided by the number of samples in the batch), and add the gradients up. The sums are added up for `finish`.

        Raises:
            UsageError: there are more scores than `gradients.MAX_SCORES`.
        """
        self._vector.take_buffers()
        loss.backward()
        self._vector.take_sums(loss.detach() if loss_sum is None else loss_sum, score_sums or {})
        self._tree.add_leaf(self._vector, self._shard)

    def finish(self) -> tuple[float, dict[str, float]]:
        """Give every rank's model the gradients of the whole batch and the mean of all shards' statistics; return the
        sums of losses and scores. Raises PeerLost, and UsageError: the shards do not agree on an integer buffer."""
        return self._vector.reduce(self._tree, self._comm, self._scratch)
