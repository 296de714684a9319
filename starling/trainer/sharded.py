"""One training step with a model that lies in parts on all ranks: `strategy: fsdp`."""

from __future__ import annotations

from dataclasses import replace

import torch

from starling.trainer.comm import Comm, peer_errors_among_others
from starling.trainer.config import Training
from starling.trainer.determinism import named_operations
from starling.trainer.gradients import ShardVector
from starling.trainer.phases import Rates
from starling.trainer.seeding import seed_torch
from starling.trainer.sharding import gathered, shard_model, spread
from starling.trainer.state import TrainingState
from starling.trainer.step import ShardBatch, Stepper, StepResult
from starling.trainer.task import Batch, Task
from starling.trainer.tree import Scratch, TreeSum


class FsdpStepper(Stepper):
    """Virtual shard by virtual shard, as exact steps are, so a rank needs memory for one shard's activations. After
    every pass the ranks' gradients are summed, and each rank keeps the sum of its own part only.

    Data, random numbers, loss and BatchNorm are those of an exact step. Only the association of the gradient's sum is
    another (first over ranks, then over a rank's passes), so the bits depend on the world size, and on nothing else.
    """

    def __init__(
        self, task: Task, model: torch.nn.Module, training: Training, comm: Comm, device: torch.device
    ) -> None:
        super().__init__(task, model, training, comm, device)
        self._vector = ShardVector(self.model, comm.world_size, training.virtual_shards, gradients=False)
        for group in self.optimizer.param_groups:
            group["foreach"] = True  # one call for all tensors: each call for a part costs far more than its arithmetic
        self._tree = TreeSum()
        self._scratch = Scratch()

    def passes(self) -> list[tuple[int, bool]]:
        """As many on all ranks, as blocks are gathered by all of them: who has fewer shards repeats its last."""
        mine = super().passes()
        most = -(-self.training.virtual_shards // self._comm.world_size)
        return mine + [(mine[-1][0], False)] * (most - len(mine))

    def state(self, step: int, *, keep: bool) -> TrainingState:
        state = super().state(step, keep=keep)
        state.tensors = gathered(state.tensors, self._comm, keep=keep)
        state.summed_over = self._comm.world_size
        return state

    def restore(self, state: TrainingState) -> None:
        super().restore(replace(state, tensors=spread(state.tensors, self.model, self._comm)))

    def _freeze(self, rates: Rates) -> None:
        """Gradients are computed for what is frozen too, and dropped: FSDP settles at its construction which it
        reduces."""

    def _place(self, model: torch.nn.Module) -> None:
        if self._comm.world_size == 1:
            super()._place(model)
        else:
            shard_model(model, self._comm, self.device)

    def _reduce_gradients(self, step: int, samples: int, shard_batch: ShardBatch) -> StepResult:
        self.optimizer.zero_grad()
        self._tree.clear()
        self._vector.begin_step()
        batch: Batch = {}
        weights = torch.empty(0)
        with named_operations():
            for shard, counts in self.passes():
                if counts:
                    batch, weights = shard_batch(step, shard)
                self._one_pass(step, shard, samples, batch, weights, counts=counts)
        loss_sum, score_sums = self._vector.reduce(self._tree, self._comm, self._scratch)
        return StepResult(loss_sum=loss_sum, score_sums=score_sums, samples=samples)

    def _one_pass(
        self, step: int, shard: int, samples: int, batch: Batch, weights: torch.Tensor, *, counts: bool
    ) -> None:
        batch, weights = self.to_device(batch, weights if counts else torch.zeros_like(weights))
        seed_torch(self.training.seed, "step", step, shard)
        self._vector.begin_shard()
        scored = self.forward(batch)
        self._vector.take_buffers()
        loss_sum = (scored.losses.float() * weights).sum()
        loss: torch.Tensor = self.scaler.scale(loss_sum / samples)
        loss.backward()
        if counts:
            sums = {name: (scores.float() * weights).sum() for name, scores in scored.scores.items()}
            self._vector.take_sums(loss_sum.detach(), sums)
            self._tree.add_leaf(self._vector, shard)

    def _prepare_gradients(self) -> None:
        # The norm, and whether a loss scale was too large, are found out together.
        with peer_errors_among_others():
            super()._prepare_gradients()
