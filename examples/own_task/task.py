"""A task of one's own: a small network learns sin(x) from points that are made up on the fly.

A task says what the model is, what the samples are, and what each sample's loss is. Starling does the rest: it cuts
batches, spreads them over machines, steps, evaluates, and survives the loss of any of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from starling.trainer.task import Batch, Samples, Scored, Task, TaskContext


class SinePoints:
    """Points (x, sin x), x in [-pi, pi]. They depend on `count` and `seed` alone, so every rank has the same ones."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = (torch.rand(count, 1, generator=generator) * 2 - 1) * math.pi

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        x = self.x[list(indices)]
        return {"x": x, "y": x.sin()}


class SineTask(Task):
    """Regression with squared error. Options: `points` (default 2048), `width` of the hidden layer (default 32)."""

    loss_name = "squared_error"

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        self.points = int(context.options.get("points", 2048))
        self.width = int(context.options.get("width", 32))

    def build_model(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(1, self.width), torch.nn.Tanh(), torch.nn.Linear(self.width, 1))

    def train_samples(self) -> Samples:
        return SinePoints(self.points, seed=self.context.seed)

    def val_samples(self) -> Samples:
        return SinePoints(256, seed=self.context.seed + 1)

    def score(self, model: torch.nn.Module, batch: Batch) -> Scored:
        error = (model(batch["x"]) - batch["y"]).squeeze(1)
        return Scored(losses=error**2, scores={"within_a_tenth": (error.abs() < 0.1).float()})
