"""One flat vector for everything that is summed over the virtual shards of a step.

Layout: every parameter's gradient, every float buffer (BatchNorm running statistics), the sum of losses, room for the
sums of scores, then what ranks compare their integer buffers by. After the reduction `Parameter.grad` are views into
the reduced vector.
"""

from __future__ import annotations

import torch

from starling.infra.errors import UsageError
from starling.trainer.comm import Comm
from starling.trainer.counters import SIGNATURE, Counters
from starling.trainer.tree import Scratch, TreeSum, padded

MAX_SCORES = 31
"""Room kept for a task's scores, so that the vector's length does not depend on what a task happens to return."""


class ShardVector:
    """What one virtual shard adds to the vector, and what the reduced vector of a step means for the model.

    `shards`: of a step, a power of two. `gradients=False` leaves gradients out: something else reduces them.

    Raises:
        UsageError: a parameter or float buffer is not float32.
    """

    def __init__(self, model: torch.nn.Module, world_size: int, shards: int, *, gradients: bool = True) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad and gradients]
        self._buffers = [b for b in model.buffers() if b.dtype.is_floating_point]
        self._counters = Counters(model)
        self._score_names: list[str] = []
        _require_float32(model)
        self._parts = [*self._parameters, *self._buffers]
        device = next(model.parameters()).device
        self._sums = torch.zeros(1 + MAX_SCORES + SIGNATURE, device=device)
        self._length = padded(sum(part.numel() for part in (*self._parts, self._sums)), world_size)
        self._shards, self._share = shards, 1 / shards
        # Each in one piece, with views in the shapes of the buffers.
        self._all_before, self._before = _like(self._buffers, device)
        self._all_statistics, self._statistics = _like(self._buffers, device)
        self._factors = torch.ones_like(self._all_before)
        self._views_of: dict[int, list[torch.Tensor]] = {}

    def begin_step(self) -> None:
        """Remember the buffers every shard of this step starts from."""
        for kept, buffer in zip(self._before, self._buffers, strict=True):
            kept.copy_(buffer)
        # Divided by a power of two, before the sum or after it, a mean has the same bits. Only the sum of large numbers
        # (masks are full of them) would overflow, and the shares of tiny ones would be rounded.
        self._factors.fill_(1.0).masked_fill_(self._all_before.abs() > 1, self._share)
        self._counters.begin_step()

    def begin_shard(self) -> None:
        """Forget all gradients, and put the buffers back to where the step began."""
        for parameter in self._parameters:
            parameter.grad = None
        for kept, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(kept)
        self._counters.begin_shard()

    def take_buffers(self) -> None:
        """Take the statistics that the forward pass left. Call before the backward pass: recomputation under
        activation checkpointing runs the forward again and must not count twice."""
        for kept, buffer in zip(self._statistics, self._buffers, strict=True):
            kept.copy_(buffer)
        self._all_statistics.mul_(self._factors)
        self._counters.take()

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

    def reduce(self, tree: TreeSum, comm: Comm, scratch: Scratch) -> tuple[float, dict[str, float]]:
        """Sum over all ranks' shards, give gradients and the mean of the shards' statistics to the model; return the
        sums of losses and scores. Gradients stay views of the reduced vector. All ranks call it.

        Raises:
            PeerLost: a peer is gone.
            UsageError: the shards do not agree on an integer buffer (see `counters.py`).
        """
        signature = self._counters.signature()
        # Once a rank: the shards have left zeros there.
        self._views(tree.blocks[0].sum)[-1][-SIGNATURE:] = torch.tensor(signature)
        root = comm.reduce_tree(tree.blocks, self._shards, scratch)
        *views, sums = self._views(root)
        loss_sum, *rest = sums.tolist()
        self._counters.require_agreement(signature, rest[-SIGNATURE:], comm.world_size)
        for parameter, gradient in zip(self._parameters, views, strict=False):
            parameter.grad = gradient
        begin = sum(parameter.numel() for parameter in self._parameters)
        root[begin : begin + len(self._factors)].mul_(self._share / self._factors)
        for buffer, mean in zip(self._buffers, views[len(self._parameters) :], strict=True):
            buffer.copy_(mean)
        return loss_sum, dict(zip(self._score_names, rest, strict=False))

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


def _like(buffers: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Memory for a copy of all of them in one piece, and its parts in their shapes."""
    whole = torch.zeros(sum(buffer.numel() for buffer in buffers), device=device)
    parts = whole.split([buffer.numel() for buffer in buffers]) if buffers else ()
    return whole, [part.view(buffer.shape) for part, buffer in zip(parts, buffers, strict=True)]


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
