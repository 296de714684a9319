"""A small task of ordered classes with everything that `evaluate` and `predict` can use: grey images, darker or
lighter, two of a patient, learned in seconds but never perfectly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.task import Batch, Samples, Scored, Task

GRADES = ["none", "mild", "moderate", "severe", "worst"]
SIDE = 12
SPLITS = {"train": (260, 1), "val": (94, 2), "hard": (30, 3)}
"""Name -> (samples, seed)."""


def picture(grade: int, seed: int) -> torch.Tensor:
    """[1, SIDE, SIDE] uint8."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, SIDE, SIDE, generator=generator) * 25 + torch.randn(1, generator=generator) * 14
    return (40 + 40 * grade + noise).clamp(0, 255).byte()


def png(grade: int, seed: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture(grade, seed)[0].numpy()).save(data, "PNG")
    return data.getvalue()


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    logits: torch.Tensor = model(batch["image"].float() / 128 - 1).float()
    return logits


class Shades:
    def __init__(self, split: str) -> None:
        count, seed = SPLITS[split]
        generator = torch.Generator().manual_seed(seed)
        self._split = split
        self.labels = torch.multinomial(torch.tensor([0.5, 0.15, 0.2, 0.1, 0.05]), count, True, generator=generator)
        self._images = torch.stack([picture(int(g), seed * 10_000 + n) for n, g in enumerate(self.labels)])

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        return {"image": self._images[list(indices)], "label": self.labels[list(indices)]}

    def key(self, index: int) -> str:
        return f"{self._split}/{index // 2}_{('left', 'right')[index % 2]}.png"

    def patient(self, index: int) -> int:
        return index // 2


class PlainShades(Task):
    """Only what every task must have."""

    loss_name = "cross_entropy"

    def build_model(self) -> nn.Module:
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(8, len(GRADES)))

    def train_samples(self) -> Samples:
        return Shades("train")

    def val_samples(self) -> Samples:
        return Shades("val")

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        logits, labels = logits_of(model, batch), batch["label"]
        return Scored(
            losses=nn.functional.cross_entropy(logits, labels, reduction="none"),
            scores={"accuracy": (logits.argmax(1) == labels).float()},
        )


class ShadesTask(PlainShades):
    class_names = GRADES
    positive_from = 2

    def split_samples(self, split: str) -> Samples:
        if split not in SPLITS:
            raise UsageError(f"--split {split}: there are {', '.join(SPLITS)}")
        return Shades(split)

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        outputs = {"probabilities": self.probabilities(model, batch), "labels": batch["label"].float()}
        return replace(super().score(model, batch), outputs={} if model.training else outputs)

    def summarise(self, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        distance = outputs["probabilities"].argmax(1).float() - outputs["labels"]
        return {"grades_off": float(distance.abs().double().mean())}

    def probabilities(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return logits_of(model, batch).softmax(1)

    def image_batch(self, images: list[bytes]) -> Batch:
        opened = [Image.open(io.BytesIO(data)).convert("L").resize((SIDE, SIDE)) for data in images]
        return {"image": torch.from_numpy(np.stack([np.asarray(image) for image in opened]))[:, None]}
