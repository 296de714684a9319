"""Memory for batches, used again and again: fresh memory costs a page fault every 4 KiB."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import torch

from starling.trainer.data.decode import Pixels

KEPT = 24
"""Buffers of one shape that are kept for later."""


class Buffers:
    """Thread-safe. A buffer is given out again once the tensor made of it, and every view of that, is gone."""

    def __init__(self) -> None:
        self._arrays: list[Pixels] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> tuple[Pixels, torch.Tensor]:
        """The same memory as array and as tensor; what is in it is left from before."""
        if torch.cuda.is_initialized():
            # Pinned, so that copies to the device run beside it; torch knows when those have ended.
            tensor = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            return tensor.numpy(), tensor
        with self._lock:
            for array, references in zip(self._arrays, list(_references(self._arrays)), strict=True):
                if array.shape == shape and references == _FREE:
                    return array, torch.from_numpy(array)
            array = np.empty(shape, np.uint8)
            self._arrays = [*self._arrays, array][-KEPT:]
            return array, torch.from_numpy(array)


def _references(arrays: list[Pixels]) -> Iterator[int]:
    """To each of them, always counted in the same way: how many of these are Python's own depends on its version."""
    return map(sys.getrefcount, arrays)


_FREE = next(_references([np.empty(0, np.uint8)]))
"""References to an array that only the list holds."""
