"""What share of its time a training run spends waiting for data, by its own measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.data_places import DATASET
from benchmarks.real_runs import home

FIRST = 8
"""Steps after the very first, in which nothing is on the disk yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One kind of training run."""

    name: str
    label: str
    model: str
    pixels: int
    batch: int
    fraction: float
    """Of the images; one epoch of them is trained."""
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waited:
    """What one training run said."""

    name: str
    label: str
    images_per_second: float
    share: float
    """Of the time of all steps but the first."""
    share_at_first: float
    """The same of the first few of them."""


SMALL = Training(name="small_cnn", label="small CNN, 64 px", model="small-cnn", pixels=64, batch=32, fraction=1.0)
LITE = Training(
    name="efficientnet_lite0",
    label="EfficientNet-Lite0, 224 px",
    model="efficientnet-lite0",
    pixels=224,
    batch=8,
    fraction=0.06,
)


def waiting(store: str, folder: Path, *, quick: bool) -> list[Waited]:
    """Train on the images in the store, one run after the other, each from a cold cache."""
    return [waited_by(training, store, folder / training.name) for training in ((SMALL,) if quick else (SMALL, LITE))]


def waited_by(training: Training, store: str, folder: Path, source: str | None = None) -> Waited:
    """Run one training, in a new home in `folder`; the dataset is prepared from `source` if the store lacks it."""
    folder.parent.mkdir(exist_ok=True)
    with home(folder, store) as here:
        spec = here.write_spec(
            "waiting",
            task={"name": "classification", "options": {"image_size": training.pixels}},
            model=training.model,
            data={"dataset": DATASET, "source": source, "fraction": training.fraction},
            training={
                "epochs": 1,
                "global_batch": training.batch,
                "virtual_shards": 2,
                "optimizer": {"name": "sgd", "lr": 0.01},
                "device": training.device,
            },
        )
        run = f"waiting-{training.name.replace('_', '-')}"
        here.run(spec, run)
        return measured(training, here.steps(run))


def measured(training: Training, steps: Sequence[dict[str, Any]]) -> Waited:
    """From the metrics of all steps. How long the first took is not known: nothing is written when it begins."""
    seconds = [after["at"] - before["at"] for before, after in pairwise(steps)]
    waits = [float(step["data_wait_seconds"]) for step in steps[1:]]
    return Waited(
        name=training.name,
        label=training.label,
        images_per_second=training.batch * len(seconds) / sum(seconds),
        share=sum(waits) / sum(seconds),
        share_at_first=sum(waits[:FIRST]) / sum(seconds[:FIRST]),
    )
