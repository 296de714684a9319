"""What chaos trains: small, with everything that exactness depends on, and as slow as the driver wants it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from starling.trainer.task import Batch, Samples, Scored, Task


class Pictures:
    """Random pictures of 8 x 8 with a learnable rule; noise is drawn per (seed, epoch, sample), as augmentation is."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._x = torch.randn(count, 1, 8, 8, generator=generator)
        self._y = (self._x[:, 0, :4].mean((1, 2)) > self._x[:, 0, 4:].mean((1, 2))).long()

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        x = self._x[list(indices)].clone()
        if epoch is not None:
            for row, index in enumerate(indices):
                generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch * 10_007 + index)
                x[row] += 0.1 * torch.randn(1, 8, 8, generator=generator)
        return {"x": x, "y": self._y[list(indices)]}


class Probe(Task):
    """Convolution, BatchNorm, dropout, an epoch's tail (407 samples). Option `brake`: a file with the seconds that
    every shard takes longer, for as long as it is there."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 2)),
        )

    def train_samples(self) -> Samples:
        return Pictures(407, seed=7)

    def val_samples(self) -> Samples:
        return Pictures(61, seed=8)

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        if model.training:
            time.sleep(_brake(Path(self.context.options["brake"])))
        logits = model(batch["x"]).float()
        losses = nn.functional.cross_entropy(logits, batch["y"], reduction="none")
        return Scored(losses=losses, scores={"accuracy": (logits.argmax(1) == batch["y"]).float()})


def _brake(path: Path) -> float:
    try:
        return float(path.read_text() or 0)
    except FileNotFoundError:
        return 0.0
