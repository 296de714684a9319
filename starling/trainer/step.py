"""One training step on this rank's share of the global batch, exact or plain."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from starling.infra.errors import UsageError
from starling.trainer.comm import Comm, peer_errors_among_others
from starling.trainer.config import Training
from starling.trainer.determinism import named_operations
from starling.trainer.exact import ExactReduction
from starling.trainer.optim import build_optimizer
from starling.trainer.phases import Rates, rates_of, set_learning_rate
from starling.trainer.recompute import recompute_blocks
from starling.trainer.seeding import seed_torch
from starling.trainer.state import TrainingState, capture, restore
from starling.trainer.task import Batch, Scored, Task
from starling.trainer.tree import owned_shards

ShardBatch = Callable[[int, int], tuple[Batch, torch.Tensor]]
"""(step, shard) -> its samples and their weights [b], both on the CPU; weight 0 marks the filling of a tail."""

# torch 2.13 renamed the option; 2.11 and 2.12 have the old name only.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Sums over the global batch of a step (with plain steps: over this rank's share of it)."""

    loss_sum: float
    score_sums: dict[str, float]
    samples: float
    """Number of samples that counted."""


class Stepper:
    """Owns model, optimizer and loss scale; turns global batches into updates.

    The model comes on the CPU, with the weights it starts from; the stepper brings it to the device.
    """

    def __init__(
        self, task: Task, model: torch.nn.Module, training: Training, comm: Comm, device: torch.device
    ) -> None:
        self.task = task
        self.model = model
        self.training = training
        self.device = device
        self._comm = comm
        self._kept_in_eval = _kept_in_eval(model)
        if training.activation_checkpointing:
            recompute_blocks(model)
        self._place(model)
        # By names and before anything is frozen: parts that have been replaced on the way to the device keep theirs.
        self._rates = rates_of(training.phases, model, task.parts(model)) if training.phases else []
        self._phase: int | None = None
        self.optimizer = build_optimizer(model, training.optimizer, self._rates)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")

    def run(self, step: int, learning_rate: float, samples: int, shard_batch: ShardBatch) -> StepResult:
        """Do step `step` (0-based) over `samples` counting samples; returns after the update."""
        self.train_mode()
        set_learning_rate(self.optimizer, self.model, learning_rate, self._current)
        sums = self._reduce_gradients(step, samples, shard_batch)
        self._prepare_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return sums

    def enter_phase(self, number: int) -> None:
        """Freeze what does not learn in this phase; cheap if it is the present one. Nothing without phases."""
        if not self._rates or number == self._phase:
            return
        self._phase = number
        self._freeze(self._rates[number])

    def train_mode(self) -> None:
        """Put the model into training mode, less what is frozen and what was built in evaluation mode. Every step
        begins with it: the mode follows from how the model was built and from the phase, never from what came since."""
        if self._current is None:
            self.model.train()
        else:
            self._current.train(self.model)
        wanted = [(each, each.training and each not in self._kept_in_eval) for each in self.model.modules()]
        for module, mode in wanted:  # parents first, as they take their children along
            if module.training != mode:
                module.train(mode)

    @property
    def _current(self) -> Rates | None:
        return None if self._phase is None else self._rates[self._phase]

    def _freeze(self, rates: Rates) -> None:
        rates.freeze(self.model)

    def passes(self) -> list[tuple[int, bool]]:
        """The virtual shards of this rank in the order in which they are run, and whether each counts."""
        mine = owned_shards(self._comm.rank, self._comm.world_size, self.training.virtual_shards)
        return [(shard, True) for shard in mine]

    def state(self, step: int, *, keep: bool) -> TrainingState:
        """The state after `step` steps; its tensors may be those that training goes on to change. All ranks call it;
        where it is not kept, its tensors may be missing."""
        return capture(step, self.model, self.optimizer, self.scaler)

    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        restore(state, self.model, self.optimizer, self.scaler)

    def settle_buffers(self) -> None:
        """Make the model's buffers equal on all ranks, as a state that is evaluated or saved must be. All call it."""

    def close(self) -> None:
        """Let go of the process group, before it is destroyed. There are no steps after this."""

    def forward(self, batch: Batch) -> Scored:
        """Score a batch that is on the device, under the spec's precision.

        Raises:
            UsageError: the task did not return one number a sample.
        """
        with self.autocast():
            scored = self.task.score(self.model, batch)
        size = len(next(iter(batch.values())))
        for name, values in {"losses": scored.losses, **scored.scores}.items():
            if values.shape != (size,):
                raise UsageError(
                    f"task: score() returned {name} of shape {list(values.shape)} for {size} samples; it must be one "
                    f'number a sample, shape [{size}] (reduction="none", and no dimension of size 1 left)'
                )
        return scored

    def to_device(self, batch: Batch, weights: torch.Tensor) -> tuple[Batch, torch.Tensor]:
        return {name: self._on_device(tensor) for name, tensor in batch.items()}, weights.to(self.device)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        images = self.training.channels_last and tensor.dim() == 4
        layout = torch.channels_last if images else torch.contiguous_format
        return tensor.to(self.device, non_blocking=True, memory_format=layout)

    def _place(self, model: torch.nn.Module) -> None:
        """Bring the model to the device."""
        model.to(self.device)
        if self.training.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def _prepare_gradients(self) -> None:
        if self._current is not None:
            self._current.drop_gradients(self.model)
        self.scaler.unscale_(self.optimizer)
        if self.training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm, foreach=False)

    def _reduce_gradients(self, step: int, samples: int, shard_batch: ShardBatch) -> StepResult:
        raise NotImplementedError

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The spec's precision, around calls of the model."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.training.precision)
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()


class ExactStepper(Stepper):
    """Shard by shard, summed along the fixed tree: same bits at every world size."""

    def __init__(
        self, task: Task, model: torch.nn.Module, training: Training, comm: Comm, device: torch.device
    ) -> None:
        super().__init__(task, model, training, comm, device)
        self._reduction = ExactReduction(model, comm, training.virtual_shards)

    def _freeze(self, rates: Rates) -> None:
        super()._freeze(rates)
        self._reduction = ExactReduction(self.model, self._comm, self.training.virtual_shards)

    def _reduce_gradients(self, step: int, samples: int, shard_batch: ShardBatch) -> StepResult:
        with named_operations():
            for shard in self._reduction.shards():
                self._one_shard(step, shard, samples, *shard_batch(step, shard))
        loss_sum, score_sums = self._reduction.finish()
        return StepResult(loss_sum=loss_sum, score_sums=score_sums, samples=samples)

    def _one_shard(self, step: int, shard: int, samples: int, batch: Batch, weights: torch.Tensor) -> None:
        batch, weights = self.to_device(batch, weights)
        seed_torch(self.training.seed, "step", step, shard)
        scored = self.forward(batch)
        loss_sum = (scored.losses.float() * weights).sum()
        self._reduction.backward(
            self.scaler.scale(loss_sum / samples),
            loss_sum.detach(),
            {name: (scores.float() * weights).sum() for name, scores in scored.scores.items()},
        )


class PlainStepper(Stepper):
    """DistributedDataParallel over the rank's whole share; fast, reproducible at one world size only."""

    def __init__(
        self, task: Task, model: torch.nn.Module, training: Training, comm: Comm, device: torch.device
    ) -> None:
        super().__init__(task, model, training, comm, device)
        self._parallel = self._in_parallel()

    def _freeze(self, rates: Rates) -> None:
        super()._freeze(rates)
        self._parallel = self._in_parallel()  # DDP settles at its construction which gradients it reduces

    def _in_parallel(self) -> torch.nn.Module:
        scoring = _Scoring(self)
        if self._comm.world_size == 1:
            return scoring
        with peer_errors_among_others():
            # Each rank keeps its own running statistics until `settle_buffers` gives all of them rank 0's.
            return DistributedDataParallel(scoring, **_OWN_BUFFERS)

    def settle_buffers(self) -> None:
        for buffer in self.model.buffers():
            copy = buffer.detach().cpu().contiguous()
            self._comm.broadcast_tensor(copy, 0)
            buffer.copy_(copy)

    def close(self) -> None:
        # What DistributedDataParallel holds of a group that is destroyed already can hang when it is collected.
        del self._parallel

    def _reduce_gradients(self, step: int, samples: int, shard_batch: ShardBatch) -> StepResult:
        comm = self._comm
        mine = owned_shards(comm.rank, comm.world_size, self.training.virtual_shards)
        parts = [shard_batch(step, shard) for shard in mine]
        batch = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
        batch, weights = self.to_device(batch, torch.cat([weights for _, weights in parts]))
        seed_torch(self.training.seed, "step", step, mine.start)
        self.optimizer.zero_grad()
        with peer_errors_among_others():
            scored: Scored = self._parallel(batch)
        loss_sum = (scored.losses.float() * weights).sum()
        # DDP averages over ranks whose shares may differ in size; the factor makes it the mean over the global batch.
        loss = self.scaler.scale(loss_sum * comm.world_size / samples)
        with peer_errors_among_others():
            loss.backward()
        sums = {name: float((scores.detach().float() * weights).sum()) for name, scores in scored.scores.items()}
        return StepResult(loss_sum=float(loss_sum.detach()), score_sums=sums, samples=float(weights.sum()))


def _kept_in_eval(model: torch.nn.Module) -> frozenset[torch.nn.Module]:
    """The modules that were put into evaluation mode on purpose. A model that is in it as a whole was only left so, as
    many libraries return theirs."""
    return frozenset(module for module in model.modules() if model.training and not module.training)


class _Scoring(torch.nn.Module):
    """Gives DDP a forward that is the task's score."""

    def __init__(self, stepper: Stepper) -> None:
        super().__init__()
        self.model = stepper.model
        self._score = stepper.forward

    def forward(self, batch: Batch) -> Scored:
        return self._score(batch)
