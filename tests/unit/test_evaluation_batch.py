"""How large evaluation batches are: a function of what one sample weighs, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from starling.trainer.evaluate import MIN_BATCH, _least_batch
from starling.trainer.task import Batch


class Images:
    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return 1

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        shape = (len(indices), 3, self.side, self.side)
        return {"image": torch.zeros(shape, dtype=torch.uint8), "label": torch.zeros(len(indices), dtype=torch.int64)}


@pytest.mark.parametrize(("side", "size"), [(8, MIN_BATCH), (512, MIN_BATCH), (1024, 16), (2048, 4), (8192, 1)])
def test_large_images_are_evaluated_by_fewer(side: int, size: int) -> None:
    assert _least_batch(Images(side), seed=0) == size
