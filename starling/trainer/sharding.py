"""A model whose parameters lie in parts on all ranks (PyTorch's FSDP2), and its state as whole tensors.

Every rank holds rows [r * n, (r + 1) * n) of each parameter's first dimension, n being that dimension over the number
of ranks, rounded up; of its gradient and its optimizer state the same rows. A block of the model is gathered when it
runs and let go of afterwards. States are saved, sent and loaded as whole tensors under the names that a model on one
rank has, so a checkpoint does not tell how the model was held.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from starling.infra.errors import UsageError
from starling.trainer.blocks import blocks_of
from starling.trainer.comm import Comm, peer_errors
from starling.trainer.state import OPTIMIZER, WEIGHTS

log = logging.getLogger(__name__)

LEAST_SHARE = 0.01
"""Share of the model's parameters from which a block is gathered by itself; smaller ones come with the rest. Each
costs two collectives a pass."""

BUCKET = 64 * 2**20
"""Bytes of tensors that are gathered at once when a state is saved."""


def shard_model(model: nn.Module, comm: Comm, device: torch.device) -> None:
    """Spread a model that is on the CPU, equal on all ranks, over them and onto `device`, in place, a block at a time:
    no device ever holds all of it. All ranks call it, with at least two in the group.

    Raises:
        UsageError: a parameter is a single number, or is not float32.
    """
    _check(model)
    with peer_errors():  # where there are GPUs and the backend is gloo, it makes a group of its own
        mesh = init_device_mesh(device.type, (comm.world_size,))
    total = sum(parameter.numel() for parameter in model.parameters())
    for module in (*_units(model, total * LEAST_SHARE), model):
        # Also the rest is let go of after its forward pass: so an evaluation leaves nothing gathered.
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded.set_custom_all_gather(_AllGather(comm))  # type: ignore[arg-type]  # its base class is private
        sharded.set_custom_reduce_scatter(_ReduceScatter(comm))  # type: ignore[arg-type]
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_gradient_divide_factor(1.0)
    model.to(device)  # what is no parameter and yet moves with the model, as the frozen networks of a fusion
    log.info("holds %d of the model's %d parameters", held(list(model.parameters())), total)


def gathered(tensors: dict[str, torch.Tensor], comm: Comm, *, keep: bool) -> dict[str, torch.Tensor]:
    """The tensors as wholes: those that lie in parts on the CPU, or missing where they are not kept; the others as they
    are. All ranks call it. A device holds at most BUCKET bytes of wholes at a time, or the largest one."""
    whole = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, DTensor)}
    bucket: dict[str, DTensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            continue
        if bucket and sum(each.nbytes for each in bucket.values()) + tensor.nbytes > BUCKET:
            whole |= _gathered_at_once(bucket, comm, keep=keep)
            bucket = {}
        bucket[name] = tensor
    if bucket:
        whole |= _gathered_at_once(bucket, comm, keep=keep)
    return {name: whole[name] for name in tensors if name in whole}


def spread(tensors: dict[str, torch.Tensor], model: nn.Module, comm: Comm) -> dict[str, torch.Tensor]:
    """This rank's parts of a captured state's whole tensors, for `state.restore`."""
    parts = dict(tensors)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not isinstance(parameter, DTensor):
            continue
        of_parameter = [key for key in tensors if key == WEIGHTS + name or _is_state_of(key, name)]
        for key in of_parameter:
            if tensors[key].shape == parameter.shape:
                parts[key] = _part(tensors[key], parameter, comm)
    return parts


def held(tensors: Sequence[torch.Tensor]) -> int:
    """How many of their numbers are on this rank."""
    return sum((each.to_local() if isinstance(each, DTensor) else each).numel() for each in tensors)


def _units(model: nn.Module, least: float) -> list[nn.Module]:
    """What is gathered by itself: blocks, and layers outside of them, that hold at least so many numbers, and none that
    another part of the model uses as well."""
    blocks = blocks_of(model)
    inside = {id(part) for block in blocks.values() for part in block.modules()}
    layers = [
        module
        for module in model.modules()
        if module is not model and id(module) not in inside and next(module.children(), None) is None
    ]
    large = [each for each in (*blocks.values(), *layers) if sum(p.numel() for p in each.parameters()) >= least]
    return [each for each in large if next(each.parameters(), None) is not None and not _shares(each, model)]


def _shares(part: nn.Module, model: nn.Module) -> bool:
    """Whether one of its parameters (tied weights) is also used outside of it."""
    inside = {id(module) for module in part.modules()}
    others = [module for module in model.modules() if id(module) not in inside]
    elsewhere = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    return any(id(parameter) in elsewhere for parameter in part.parameters())


def _check(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 0:
            raise UsageError(
                f"training.strategy: fsdp cannot cut the parameter {name}, a single number, into parts; give it the "
                "shape [1], or use strategy: replicated"
            )
        if parameter.dtype != torch.float32:
            raise UsageError(
                f"training.strategy: fsdp keeps parameters in float32, but {name} is {parameter.dtype}; build the "
                "model in float32 and choose training.precision: bf16 or fp16 for faster arithmetic"
            )


def _is_state_of(key: str, parameter: str) -> bool:
    prefix = f"{OPTIMIZER}{parameter}."
    return key.startswith(prefix) and "." not in key.removeprefix(prefix)


def _gathered_at_once(bucket: dict[str, DTensor], comm: Comm, *, keep: bool) -> dict[str, torch.Tensor]:
    """With one collective, as the parts of most tensors are small. All of the bucket have one type, float32."""
    parts = [_padded_part(tensor, comm).view(-1) for tensor in bucket.values()]
    mine = torch.cat(parts)
    everyones = mine.new_empty((comm.world_size, mine.numel()))
    comm.all_gather(everyones.view(-1), mine)
    if not keep:
        return {}
    columns = everyones.cpu().split([len(part) for part in parts], dim=1)
    return {
        name: part.reshape(-1, *tensor.shape[1:])[: tensor.shape[0]].contiguous()
        for (name, tensor), part in zip(bucket.items(), columns, strict=True)
    }


def _padded_part(tensor: DTensor, comm: Comm) -> torch.Tensor:
    """This rank's rows, and zeros where it has fewer than the first rank."""
    mine = tensor.to_local()
    missing = _rows(tensor.shape[0], comm.world_size) - len(mine)
    return torch.cat([mine, mine.new_zeros((missing, *tensor.shape[1:]))]) if missing else mine


def _part(whole: torch.Tensor, like: DTensor, comm: Comm) -> DTensor:
    rows = _rows(whole.shape[0], comm.world_size)
    # A copy: a view would keep the whole in memory.
    mine = whole[comm.rank * rows : (comm.rank + 1) * rows].to(like.to_local().device, copy=True)
    return DTensor.from_local(
        mine, like.device_mesh, like.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def _rows(count: int, world_size: int) -> int:
    return -(-count // world_size)


class _Room:
    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _AllGather(_Room):
    """FSDP2's collectives through ours: one place that knows lost peers, and ranks that share a GPU."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm

    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *_: Any, **__: Any) -> None:
        self._comm.all_gather(output_tensor, input_tensor)


class _ReduceScatter(_Room):
    def __init__(self, comm: Comm) -> None:
        self._comm = comm

    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *_: Any, **__: Any) -> None:
        self._comm.reduce_scatter(output_tensor, input_tensor)
