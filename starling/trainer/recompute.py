"""Activation checkpointing: a block's activations are computed again in the backward pass instead of being kept.

PyTorch's non-reentrant `torch.utils.checkpoint`, put around the forward of every block, so that no module is wrapped
and no name in a checkpoint changes. The second pass sees what the first one saw (random numbers, autocast, and
buffers), and leaves no trace: running statistics count once. So the gradients have the same bits as without.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from starling.infra.errors import UsageError
from starling.trainer.blocks import blocks_of

Forward = Callable[..., Any]

LONG = 8
"""Layers; a Sequential of at least so many is computed again in pieces, about as many as each has layers."""


def recompute_blocks(model: nn.Module) -> None:
    """Make every block of the model (see `blocks.py`) forget its activations, in place. A block that is a long
    Sequential of layers is cut into pieces; one that begins with a layer that works in place (the classifiers of some
    of torchvision's models) is left as it is.

    Raises:
        UsageError: the model has no blocks; later, from its forward: a block changes its input in place.
    """
    blocks = blocks_of(model)
    if not blocks and _is_plain_sequential(model):
        blocks = {"": model}
    if not blocks:
        raise UsageError(
            "training.activation_checkpointing: the model has no blocks (modules that hold layers) whose activations "
            "could be computed again; group its layers into modules, or drop it"
        )
    for name, block in blocks.items():
        layers = list(block.children()) if _is_plain_sequential(block) else []
        if layers and getattr(layers[0], "inplace", False):
            continue
        if len(layers) >= LONG:
            block.forward = _in_pieces(name, layers)
        else:
            block.forward = _recomputed(name, block.forward, [block])


def _is_plain_sequential(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _in_pieces(name: str, layers: list[nn.Module]) -> Forward:
    pieces = [_recomputed(name, _one_after_another(piece), piece) for piece in _cut(layers)]
    return _one_after_another(pieces)


def _one_after_another(functions: list[Any]) -> Forward:
    def forward(value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    return forward


def _cut(layers: list[nn.Module]) -> list[list[nn.Module]]:
    """Pieces of about sqrt(n) layers. Each begins with a layer that has a matrix or a kernel: such a layer never
    changes its input in place, which the piece before still holds."""
    size = math.isqrt(len(layers))
    pieces: list[list[nn.Module]] = [[]]
    for layer in layers:
        if len(pieces[-1]) >= size and any(weight.dim() > 1 for weight in layer.parameters()):
            pieces.append([])
        pieces[-1].append(layer)
    return pieces


def _recomputed(name: str, forward: Forward, modules: list[nn.Module]) -> Forward:
    # The dicts, not the tensors: moving a model to a device replaces these.
    places = [(each._buffers, key) for module in modules for each in module.modules() for key in each._buffers]

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        at_entry = [(held, key, held[key]) for held, key in places]
        copies = [(held, key, None if buffer is None else buffer.clone()) for held, key, buffer in at_entry]
        args = tuple(list(each) if isinstance(each, list) else each for each in args)  # DenseNet's grow afterwards
        versions = _versions(args)
        result = checkpoint(
            forward,
            *args,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _buffers(copies)),
            **kwargs,
        )
        if _versions(args) != versions:
            raise UsageError(
                f"training.activation_checkpointing: {name or 'the model'} changes its input in place, so it cannot be "
                "computed again; let its first layer work out of place (inplace=False), or drop it"
            )
        return result

    return recomputed


def _versions(args: tuple[Any, ...]) -> list[int]:
    """How often each tensor among them was changed in place."""
    flat = [each for arg in args for each in (arg if isinstance(arg, list) else [arg])]
    return [each._version for each in flat if isinstance(each, torch.Tensor)]


@contextlib.contextmanager
def _buffers(put: list[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """Let modules have these buffers for a while. Tensors are exchanged rather than overwritten: the graph of the first
    pass may refer to the real ones."""
    kept = [(held, key, held[key]) for held, key, _ in put]
    try:
        for held, key, buffer in put:
            held[key] = buffer
        yield
    finally:
        for held, key, buffer in kept:
            held[key] = buffer
