"""A small task over images, with blocks to compute again and to hold in parts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from starling.trainer.models.build import build
from starling.trainer.task import Batch, Samples, Scored, Task


class Pictures:
    """Random 8 x 8 colour images, brighter on the left or on the right."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(11)
        self._labels = torch.arange(count) % 2
        images = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images[self._labels == 0, :, :, :4] += 40
        images[self._labels == 1, :, :, 4:] += 40
        self._images = images

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        return {"image": self._images[list(indices)], "label": self._labels[list(indices)]}


class PicturesTask(Task):
    """Convolutions, BatchNorm, dropout, an epoch tail (75 samples: 5 steps of 16); options: step_seconds."""

    def build_model(self) -> nn.Module:
        return build("small-cnn", {"channels": [7, 16, 16], "dropout": 0.2}, num_classes=2, in_channels=3)

    def train_samples(self) -> Samples:
        return Pictures(75)

    def val_samples(self) -> Samples:
        return Pictures(21)

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        if model.training:
            time.sleep(self.context.options.get("step_seconds", 0.0))
        logits = model(batch["image"].float() / 255).float()
        losses = nn.functional.cross_entropy(logits, batch["label"], reduction="none")
        return Scored(losses=losses, scores={"accuracy": (logits.argmax(1) == batch["label"]).float()})
