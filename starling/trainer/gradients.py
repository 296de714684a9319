"""One flat vector for everything that is summed over the virtual shards of a step.

Layout: every parameter's gradient, every float buffer (BatchNorm running statistics), the sum of losses, then room for
the sums of scores. `Parameter.grad` are views into it, so a backward pass writes straight into the vector.
"""

from __future__ import annotations

import torch

from starling.infra.errors import UsageError
from starling.trainer.tree import padded

MAX_SCORES = 31
"""Room kept for a task's scores, so that the vector's length does not depend on what a task happens to return."""


class ShardVector:
    """The vector of one virtual shard, and what the reduced vector of a step means for the model.

    Raises:
        UsageError: a parameter or float buffer is not float32.
    """

    def __init__(self, model: torch.nn.Module, world_size: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._float_buffers = [b for b in model.buffers() if b.dtype.is_floating_point]
        self._other_buffers = [b for b in model.buffers() if not b.dtype.is_floating_point]
        self._score_names: list[str] = []
        _require_float32(model)
        parts = [*self._parameters, *self._float_buffers]
        device = parts[0].device
        length = sum(part.numel() for part in parts) + 1 + MAX_SCORES
        self.flat = torch.zeros(padded(length, world_size), device=device)
        self._gradients = _views(self.flat, 0, self._parameters)
        offset = sum(p.numel() for p in self._parameters)
        self._buffer_sums = _views(self.flat, offset, self._float_buffers)
        self._sums_at = offset + sum(b.numel() for b in self._float_buffers)
        self._before = [b.clone() for b in (*self._float_buffers, *self._other_buffers)]

    def begin_step(self) -> None:
        """Remember the buffers every shard of this step starts from."""
        for kept, buffer in zip(self._before, (*self._float_buffers, *self._other_buffers), strict=True):
            kept.copy_(buffer)

    def begin_shard(self) -> None:
        """Zero the vector, aim the gradients at it, and put the buffers back to where the step began."""
        self.flat.zero_()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        for kept, buffer in zip(self._before, (*self._float_buffers, *self._other_buffers), strict=True):
            buffer.copy_(kept)

    def take_buffers(self) -> None:
        """Take the statistics that the forward pass left. Call before the backward pass: recomputation under
        activation checkpointing runs the forward again and must not count twice."""
        for kept, buffer in zip(self._buffer_sums, self._float_buffers, strict=True):
            kept.copy_(buffer)

    def add_sums(self, loss_sum: torch.Tensor, score_sums: dict[str, torch.Tensor]) -> None:
        """Add this shard's (weighted) sums of losses and scores.

        Raises:
            UsageError: the task returned more than MAX_SCORES scores.
        """
        self._score_names = sorted(score_sums)
        if len(self._score_names) > MAX_SCORES:
            raise UsageError(f"the task returns {len(score_sums)} scores; at most {MAX_SCORES} are summed")
        self.flat[self._sums_at] = loss_sum
        for index, name in enumerate(self._score_names, start=self._sums_at + 1):
            self.flat[index] = score_sums[name]

    def spread(self, root: torch.Tensor, shards: int) -> tuple[float, dict[str, float]]:
        """Give the reduced gradients and the mean of the shards' statistics to the model; return the sums.

        Integer buffers (`num_batches_tracked`) keep what one shard made of them: they count steps, not shards.
        """
        self.flat.copy_(root)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        for buffer, total in zip(self._float_buffers, self._buffer_sums, strict=True):
            buffer.copy_(total / shards)
        loss_sum, *scores = self.flat[self._sums_at : self._sums_at + 1 + len(self._score_names)].tolist()
        return loss_sum, dict(zip(self._score_names, scores, strict=True))


def _views(
    flat: torch.Tensor, offset: int, tensors: list[torch.Tensor] | list[torch.nn.Parameter]
) -> list[torch.Tensor]:
    views = []
    for tensor in tensors:
        views.append(flat[offset : offset + tensor.numel()].view(tensor.shape))
        offset += tensor.numel()
    return views


def _require_float32(model: torch.nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            raise UsageError(
                f"exact training keeps parameters and statistics in float32, but {name} is {tensor.dtype}; "
                "build the model in float32 and choose training.precision: bf16 or fp16 for faster arithmetic"
            )
