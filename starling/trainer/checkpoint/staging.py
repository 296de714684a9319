"""Memory that states are copied into before they are saved, so that training can change them meanwhile."""

from __future__ import annotations

import itertools
import queue
from dataclasses import dataclass

import torch

from starling.trainer.memory import big_memory, tensor_in

ALIGNMENT = 64
"""Bytes; a cache line."""
Layout = list[tuple[str, torch.Size, torch.dtype, bool]]
"""Name, shape, type, whether it is on a GPU."""


class Staging:
    """So many states may be on their way at once. Their memory is taken when first needed, and used again and again:
    copying into memory that is there already costs a fraction of copying into fresh one."""

    def __init__(self, count: int) -> None:
        # Last in, first out: while saving keeps up, one and the same memory serves.
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(Slot())

    def take(self) -> Slot:
        """Memory for one state; waits until some is free."""
        return self._free.get()

    def give_back(self, slot: Slot) -> None:
        """What was copied there is not needed any more."""
        self._free.put(slot)


@dataclass(slots=True)
class _Held:
    layout: Layout
    tensors: dict[str, torch.Tensor]


class Slot:
    """Memory for one state."""

    def __init__(self) -> None:
        self._held: _Held | None = None

    def copy(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies on the CPU, which stay until the next call."""
        layout = [(name, tensor.shape, tensor.dtype, tensor.is_cuda) for name, tensor in tensors.items()]
        if self._held is None or self._held.layout != layout:
            self._held = None  # first let go of the old memory
            self._held = _Held(layout, _room(layout))
        if tensors:
            sources = [tensor.detach() for tensor in tensors.values()]
            torch._foreach_copy_(list(self._held.tensors.values()), sources, non_blocking=True)
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            torch.cuda.synchronize(device)
        return dict(self._held.tensors)


def _room(layout: Layout) -> dict[str, torch.Tensor]:
    sizes = [shape.numel() * dtype.itemsize for _, shape, dtype, _ in layout]
    padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    memory = big_memory(sum(padded), pinned=any(on_gpu for *_, on_gpu in layout))
    offsets = itertools.accumulate(padded, initial=0)
    return {
        name: tensor_in(memory, offset, tuple(shape), dtype)
        for (name, shape, dtype, _), offset in zip(layout, offsets, strict=False)
    }
