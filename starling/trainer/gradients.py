"""One flat vector for everything that is summed over the virtual shards of a step.

Layout: every parameter's gradient, every float buffer (BatchNorm running statistics), the sum of losses, then room for
the sums of scores. After the reduction `Parameter.grad` are views into the reduced vector.
"""

from __future__ import annotations

import torch

from starling.infra.errors import UsageError
from starling.trainer.tree import padded

MAX_SCORES = 31
"""Room kept for a task's scores, so that the vector's length does not depend on what a task happens to return."""


class ShardVector:
    """What one virtual shard adds to the vector, and what the reduced vector of a step means for the model.

    `gradients=False` leaves gradients out: something else reduces them.

    Raises:
        UsageError: a parameter or float buffer is not float32.
    """

    def __init__(self, model: torch.nn.Module, world_size: int, *, gradients: bool = True) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad and gradients]
        self._float_buffers = [b for b in model.buffers() if b.dtype.is_floating_point]
        self._other_buffers = [b for b in model.buffers() if not b.dtype.is_floating_point]
        self._score_names: list[str] = []
        _require_float32(model)
        self._parts = [*self._parameters, *self._float_buffers]
        self._sums = torch.zeros(1 + MAX_SCORES, device=next(model.parameters()).device)
        self._length = padded(sum(part.numel() for part in (*self._parts, self._sums)), world_size)
        self._before = [b.clone() for b in (*self._float_buffers, *self._other_buffers)]
        self._statistics = [b.clone() for b in self._float_buffers]
        self._views_of: dict[int, list[torch.Tensor]] = {}

    def begin_step(self) -> None:
        """Remember the buffers every shard of this step starts from."""
        for kept, buffer in zip(self._before, (*self._float_buffers, *self._other_buffers), strict=True):
            kept.copy_(buffer)

    def begin_shard(self) -> None:
        """Forget all gradients, and put the buffers back to where the step began."""
        for parameter in self._parameters:
            parameter.grad = None
        for kept, buffer in zip(self._before, (*self._float_buffers, *self._other_buffers), strict=True):
            buffer.copy_(kept)

    def take_buffers(self) -> None:
        """Take the statistics that the forward pass left. Call before the backward pass: recomputation under
        activation checkpointing runs the forward again and must not count twice."""
        for kept, buffer in zip(self._statistics, self._float_buffers, strict=True):
            kept.copy_(buffer)

    def take_sums(self, loss_sum: torch.Tensor, score_sums: dict[str, torch.Tensor]) -> None:
        """Take this shard's (weighted) sums of losses and scores.

        Raises:
            UsageError: the task returned more than MAX_SCORES scores.
        """
        self._score_names = sorted(score_sums)
        if len(self._score_names) > MAX_SCORES:
            raise UsageError(f"the task returns {len(score_sums)} scores; at most {MAX_SCORES} are summed")
        self._sums.zero_()
        self._sums[0] = loss_sum
        for index, name in enumerate(self._score_names, start=1):
            self._sums[index] = score_sums[name]

    def new_vector(self) -> torch.Tensor:
        """Memory for one; what pads it to its length is zero and stays so."""
        return torch.zeros(self._length, device=self._sums.device)

    def copy_to(self, vector: torch.Tensor) -> None:
        """Write this shard's gradients, statistics and sums."""
        torch._foreach_copy_(self._views(vector), self._pieces())

    def add_to(self, vector: torch.Tensor) -> None:
        """Add them to another shard's. Element for element the same sum as of two whole vectors."""
        torch._foreach_add_(self._views(vector), self._pieces())

    def spread(self, root: torch.Tensor, shards: int) -> tuple[float, dict[str, float]]:
        """Give the reduced gradients and the mean of the shards' statistics to the model; return the sums.

        The gradients stay views of `root`. Integer buffers (`num_batches_tracked`) keep what one shard made of them:
        they count steps, not shards.
        """
        *views, sums = self._views(root)
        for parameter, gradient in zip(self._parameters, views, strict=False):
            parameter.grad = gradient
        for buffer, total in zip(self._float_buffers, views[len(self._parameters) :], strict=True):
            torch.div(total, shards, out=buffer)
        loss_sum, *scores = sums[: 1 + len(self._score_names)].tolist()
        return loss_sum, dict(zip(self._score_names, scores, strict=True))

    def _pieces(self) -> list[torch.Tensor]:
        return [*(_dense_gradient(parameter) for parameter in self._parameters), *self._statistics, self._sums]

    def _views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The vector cut into parameters, float buffers and sums; the same few vectors come again and again."""
        known = self._views_of.get(vector.data_ptr())
        if known is None:
            shapes = [part.shape for part in (*self._parts, self._sums)]
            pieces = vector.split([*(shape.numel() for shape in shapes), self._padding])[:-1]
            known = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
            self._views_of[vector.data_ptr()] = known
        return known

    @property
    def _padding(self) -> int:
        return self._length - sum(part.numel() for part in (*self._parts, self._sums))


def _dense_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Zero where the loss does not depend on it."""
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad


def _require_float32(model: torch.nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            raise UsageError(
                f"exact training keeps parameters and statistics in float32, but {name} is {tensor.dtype}; "
                "build the model in float32 and choose training.precision: bf16 or fp16 for faster arithmetic"
            )
