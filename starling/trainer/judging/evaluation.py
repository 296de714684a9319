"""The record of an evaluation: what `evaluation.json` holds, and all that the page and the terminal show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from starling.infra.records import Record


def number(value: float | None) -> float | None:
    """None for NaN and infinity, which JSON does not have: the history of a run that diverged holds null for them."""
    return value if value is not None and math.isfinite(value) else None


class Metric(Record):
    """A number and the interval that holds it with the stated confidence."""

    value: float | None
    """None: not defined for these samples, or not finite."""
    low: float | None = None
    high: float | None = None


class ClassScores(Record):
    """One class against the rest."""

    name: str
    support: int
    """Samples of this class."""
    predicted: int
    """Samples sorted into this class."""
    precision: float | None
    """None: nothing was sorted into it."""
    recall: float | None
    """None: there are no samples of it."""
    f1: float | None


class Roc(Record):
    """A receiver operating characteristic."""

    name: str
    positives: int
    negatives: int
    auc: Metric
    points: list[tuple[float, float]]
    """(false positive rate, true positive rate), from (0, 0) to (1, 1); thinned to what a drawing can show."""


class Bin(Record):
    """Samples whose confidence (probability of the class they were sorted into) lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean; None for an empty bin."""
    accuracy: float | None


class Mistake(Record):
    """A sample that was sorted into the wrong class."""

    number: int
    """In the split, from 0."""
    key: str
    label: str
    predicted: str
    probability: float
    """Of the class it was sorted into."""
    probability_of_label: float


class Sorting(Record):
    """How a classifier sorts."""

    classes: list[ClassScores]
    confusion: list[list[int]]
    """[true class][class it was sorted into]."""
    macro_f1: float | None
    rocs: list[Roc]
    """Of every class against the rest; for ordered classes also of those from the first positive one on."""
    calibration: list[Bin]
    calibration_error: float
    mistake_count: int
    mistakes: list[Mistake]
    """The most confident ones."""


class Dataset(Record):
    name: str | None
    split: str
    samples: int
    patients: int | None
    """None: names of images do not tell."""
    content_sha256: str | None
    trained_on: bool
    """Whether it is the dataset that the run was trained on (this split may still be another)."""


class Bootstrap(Record):
    """How the intervals were made."""

    resamples: int
    seed: int
    confidence: float
    unit: Literal["sample", "patient"]


class Recorded(Record):
    """What the run itself measured at the same step on the same split."""

    metrics: dict[str, float | None]
    equal: bool
    """Whether these are the same numbers to the last bit."""

    @classmethod
    def of(cls, told: Mapping[str, float | None], measured: Mapping[str, float]) -> Recorded:
        """`told` is what the run wrote down."""
        then, now = ({name: number(value) for name, value in values.items()} for values in (told, measured))
        return cls(metrics=then, equal=then == now)


class Evaluation(Record):
    """One model on one split."""

    run: str
    incarnation: int
    step: int
    epoch: int
    checkpoint: str
    """URI of its manifest."""
    weights_sha256: str
    state_sha256: str
    task: str
    model: str | None
    dataset: Dataset
    command: str
    at: float
    """Seconds since the epoch."""
    starling: str
    """Version."""
    device: dict[str, Any]
    """What the numbers' last bits depend on."""
    metrics: dict[str, Metric]
    bootstrap: Bootstrap
    recorded: Recorded | None
    """None: the run did not measure this."""
    sorting: Sorting | None
    """None: the task does not tell classes."""
