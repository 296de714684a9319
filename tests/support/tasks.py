"""A small task that exercises everything exactness depends on, with faults on request."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from starling.trainer.task import Batch, Samples, Scored, Task


class Points:
    """Random points with a learnable rule; `noise` is drawn per (seed, epoch, sample), like an augmentation."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(7)
        self._x = torch.randn(count, 6, generator=generator)
        self._y = (self._x[:, 0] * self._x[:, 1] > 0).long()

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        x = self._x[list(indices)].clone()
        if epoch is not None:
            for row, index in enumerate(indices):
                generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch * 10_007 + index)
                x[row] += 0.1 * torch.randn(6, generator=generator)
        return {"x": x, "y": self._y[list(indices)]}


class ProbeTask(Task):
    """BatchNorm, dropout, an epoch tail (203 samples); options: step_seconds and hold_while (long
    steps), brake (slow steps while a file exists), raise_error, mistake, op, sick_node (its disk is full)."""

    def build_model(self) -> nn.Module:
        layers = [nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2)]
        return nn.Sequential(*layers)

    def train_samples(self) -> Samples:
        return Points(self.context.options.get("samples", 203))

    def val_samples(self) -> Samples:
        return Points(61)

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        options = self.context.options
        if model.training:
            time.sleep(options.get("step_seconds", 0.0))
            if Path(options.get("brake", "")).is_file():
                time.sleep(0.1)
            if os.environ.get("STARLING_NODE") == options.get("sick_node", ""):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if options.get("raise_error"):
                raise ZeroDivisionError("the user's task divided by zero")
            if options.get("op") == "max_unpool":
                pooled, where = nn.functional.max_pool1d(batch["x"][None], 2, return_indices=True)
                nn.functional.max_unpool1d(pooled, where, 2)
            _wait_while(options.get("hold_while"))
        logits = model(batch["x"]).float()
        losses = nn.functional.cross_entropy(logits, batch["y"], reduction="none")
        losses = {"mean": losses.mean(), "column": losses[:, None]}.get(options.get("mistake", ""), losses)
        return Scored(losses=losses, scores={"accuracy": (logits.argmax(1) == batch["y"]).float()})


class UnevenStart(ProbeTask):
    """Reads the weights it starts from while somebody changes them: every rank has others."""

    def initialise(self, model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(float(os.environ["RANK"]))


def _wait_while(path: str | None) -> None:
    """Make a step last for as long as a file exists."""
    while path is not None and Path(path).exists() and os.getppid() != 1:
        time.sleep(0.02)
