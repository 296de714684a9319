"""What both systems train: the same model on the same samples, on the same pretended device, noting every step."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

SAMPLES = 1 << 20
"""An epoch no measurement sees the end of."""
BATCH = 64
"""Over all ranks."""
RATE = 0.001
FEATURES, HIDDEN, CLASSES = 64, 1024, 10
SECONDS_PER_SAMPLE = 0.001
"""How long the device would compute. Slept: ranks that share the cores of one machine must not compete for them in
their steps, where on machines of their own they would not."""


def build_model() -> nn.Module:
    """1.1 million parameters."""
    layers = [nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)]
    return nn.Sequential(*layers)


def samples(indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and classes of some samples, a function of their numbers."""
    numbers = torch.tensor(indices, dtype=torch.float32)[:, None]
    x = torch.sin(numbers * torch.arange(1, FEATURES + 1) * 0.37)
    return x, (x[:, :CLASSES]).argmax(1)


def losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One loss a sample, after as long as the device would take for them."""
    time.sleep(SECONDS_PER_SAMPLE * len(x))
    return nn.functional.cross_entropy(model(x), y, reduction="none")


class Diary:
    """A file of this process' own, a line for each thing it has done: `<epoch seconds> <world size> <rank> <what>`."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / str(os.getpid())).open("a", buffering=1)

    def note(self, what: str, at: float | None = None) -> None:
        place = f"{os.environ['WORLD_SIZE']} {os.environ['RANK']}"
        self._file.write(f"{at or time.time():.6f} {place} {what}\n")

    def note_every_step(self) -> None:
        """From now on, each completed step of any optimizer."""
        register_optimizer_step_post_hook(lambda *_: self.note("step"))
