"""The job as a Starling task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from benchmarks.recovery_job import training
from starling.trainer.task import Batch, Samples, Scored, Task


class Numbers:
    """The samples."""

    def __len__(self) -> int:
        return training.SAMPLES

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        x, y = training.samples(indices)
        return {"x": x, "y": y}


class RecoveryTask(Task):
    """Option `diary`: the folder for the diaries."""

    def build_model(self) -> nn.Module:
        diary = training.Diary(Path(self.context.options["diary"]))
        diary.note("task")
        diary.note_every_step()
        return training.build_model()

    def train_samples(self) -> Samples:
        return Numbers()

    def val_samples(self) -> Samples | None:
        return None

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        return Scored(losses=training.losses(model, batch["x"], batch["y"]))
