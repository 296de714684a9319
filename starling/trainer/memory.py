"""Large pieces of memory, and tensors in them."""

from __future__ import annotations

import mmap
import os

import torch


def all_cores() -> int:
    """How many threads the cores that this process may use can serve."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def big_memory(size: int, *, pinned: bool = False) -> torch.Tensor:
    """`size` bytes, uint8, in huge pages where the kernel has them: with small ones, touching fresh memory for the
    first time costs several times what copying into it does. `pinned`: for fast copies from a GPU instead."""
    if pinned or size == 0:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has pages of its own
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(area, dtype=torch.uint8)


def tensor_in(memory: torch.Tensor, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor over some bytes of `memory`; a copy if they lie where this type must not. Raises ValueError if they do
    not fit."""
    size = dtype.itemsize * torch.Size(shape).numel()
    if offset < 0 or offset + size > memory.numel():
        raise ValueError(f"a tensor of {size} bytes at {offset} does not fit into {memory.numel()} bytes")
    data = memory[offset : offset + size]
    if data.data_ptr() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).view(shape)


def peak_gpu_memory(device: torch.device) -> dict[str, int]:
    """The most that this process' tensors have taken of a GPU since the last call, as {"gpu_memory_bytes": ...}; {} on
    a CPU."""
    if device.type != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"gpu_memory_bytes": peak}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, in place."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
