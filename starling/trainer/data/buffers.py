"""Memory for batches, used again and again: fresh memory costs a page fault every 4 KiB."""

from __future__ import annotations

import sys
import threading

import numpy as np
import torch

from starling.trainer.data.decode import Pixels

KEPT = 24
"""Buffers of one shape that are kept for later."""
_FREE = 3
"""References to an array that nobody uses: the list's, the loop variable's, and the argument of getrefcount."""


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
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == _FREE:
                    return array, torch.from_numpy(array)
            array = np.empty(shape, np.uint8)
            self._arrays = [*self._arrays, array][-KEPT:]
            return array, torch.from_numpy(array)
