"""Puts an evaluation together: which samples, what the model makes of them, how sure the numbers are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import starling
from starling.infra import layout
from starling.infra.errors import UsageError
from starling.infra.store import Store, object_uri
from starling.trainer.checkpoint.manifest import manifest_key
from starling.trainer.data.index import DatasetIndex
from starling.trainer.determinism import device_fingerprint
from starling.trainer.judging.bootstrap import CONFIDENCE, RESAMPLES, SEED, intervals
from starling.trainer.judging.evaluation import Bootstrap, Dataset, Evaluation, Metric, Recorded, number
from starling.trainer.judging.loading import Loaded
from starling.trainer.judging.measuring import Measured, measure
from starling.trainer.judging.sorting import Sorted, areas, describe
from starling.trainer.judging.thumbnails import thumbnail
from starling.trainer.task import Classifies, Grades, Keyed, OfPatients, Samples, Splits, Task

Tick = Callable[[str, int, int], None]
"""(what is being done, how much of it, of how much)."""
VALIDATION = ("val", "test")
"""Splits that built-in tasks validate on: the first of them that there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """An evaluation, and what only its page shows."""

    evaluation: Evaluation
    thumbnails: dict[int, bytes]
    """Number of a sample -> a small JPEG of it."""


def judge(
    store: Store,
    loaded: Loaded,
    *,
    split: str | None,
    command: str,
    batch: int | None = None,
    resamples: int = RESAMPLES,
    tick: Tick = lambda what, done, of: None,
) -> Judgement:
    """Evaluate on a split (None: the one the run validates on); `tick` tells how far it is.

    `batch`: samples in a batch instead of as many as in training, whose shape the last bits of the numbers depend on.
    `resamples`: for the intervals; 0 for none. Raises UsageError if there is no such split.
    """
    samples = _samples(loaded.task, split)
    measured = measure(loaded, samples, batch=batch, tick=lambda done: tick("samples", done, len(samples)))
    keys = [samples.key(number) for number in range(len(samples))] if isinstance(samples, Keyed) else None
    patients = _patients(samples)
    given = sorted_by(loaded.task, measured)
    interval_of = intervals(
        lambda numbers: _metrics(loaded.task, measured, given, numbers),
        patients,
        len(measured),
        resamples=resamples,
        tick=lambda done: tick("resamples", done, resamples),
    )
    sorting = describe(given, lambda number: keys[number] if keys else str(number), interval_of) if given else None
    evaluation = Evaluation(
        **_identity(store, loaded),
        dataset=Dataset(
            name=loaded.job.dataset,
            split=split or _validation_split(loaded.index),
            samples=len(measured),
            patients=len(set(patients)) if patients is not None else None,
            content_sha256=loaded.task.data_sha256(),
            trained_on=loaded.is_own_data,
        ),
        command=command,
        metrics=_with_intervals(measured.metrics, interval_of),
        bootstrap=Bootstrap(
            resamples=resamples, seed=SEED, confidence=CONFIDENCE, unit="patient" if patients is not None else "sample"
        ),
        recorded=_recorded(loaded, measured, split),
        sorting=sorting,
    )
    wrong = [mistake.number for mistake in sorting.mistakes] if sorting else []
    pictures = {number: thumbnail(samples, number) for number in wrong}
    return Judgement(
        evaluation=evaluation,
        thumbnails={number: picture for number, picture in pictures.items() if picture is not None},
    )


def sorted_by(task: Task, measured: Measured) -> Sorted | None:
    """What the outputs say about classes; None if the task does not tell any."""
    outputs = measured.outputs
    if not isinstance(task, Classifies) or not {"probabilities", "labels"} <= outputs.keys():
        return None
    return Sorted(
        classes=task.class_names,
        positive_from=task.positive_from if isinstance(task, Grades) else None,
        probabilities=outputs["probabilities"],
        labels=outputs["labels"].long(),
    )


def _metrics(task: Task, measured: Measured, given: Sorted | None, numbers: torch.Tensor) -> dict[str, float]:
    """Those of training, and the areas, of some samples."""
    means = {name: float(values[numbers].double().mean()) for name, values in measured.means.items()}
    outputs = {name: rows[numbers] for name, rows in measured.outputs.items()}
    whole = task.summarise(outputs) if outputs else {}
    return means | whole | (areas(given.at(numbers)) if given else {})


def _with_intervals(metrics: dict[str, float], interval_of: dict[str, tuple[float, float]]) -> dict[str, Metric]:
    known = {name: interval_of.get(name, (None, None)) for name in metrics}
    return {
        name: Metric(value=number(value), low=known[name][0], high=known[name][1]) for name, value in metrics.items()
    }


def _samples(task: Task, split: str | None) -> Samples:
    if split is not None and isinstance(task, Splits):
        return task.split_samples(split)
    if split is not None and split not in VALIDATION:
        raise UsageError(f"--split {split}: the run's task has only its validation samples; leave it out")
    samples = task.val_samples()
    if samples is None:
        raise UsageError("the run's task has no samples to validate on; name another split with --split")
    return samples


def _patients(samples: Samples) -> list[int] | None:
    """The patient of every sample; None if each has one of its own, as far as is known."""
    if not isinstance(samples, OfPatients):
        return None
    patients = [samples.patient(number) for number in range(len(samples))]
    return patients if len(set(patients)) < len(patients) else None


def _validation_split(index: DatasetIndex | None) -> str:
    return next((name for name in VALIDATION if index is not None and name in index.splits), VALIDATION[0])


def _identity(store: Store, loaded: Loaded) -> dict[str, Any]:
    """Which model this is, and what it was run with."""
    manifest, job = loaded.manifest, loaded.job
    return {
        "run": job.run,
        "incarnation": manifest.incarnation,
        "step": manifest.step,
        "epoch": manifest.epoch,
        "checkpoint": object_uri(store.uri, manifest_key(layout.checkpoints(job.run), manifest.step)),
        "weights_sha256": manifest.weights_sha256,
        "state_sha256": manifest.state_sha256,
        "task": job.task,
        "model": job.model,
        "at": time.time(),
        "starling": starling.__version__,
        "device": device_fingerprint(loaded.device, loaded.training.threads_per_rank),
    }


def _recorded(loaded: Loaded, measured: Measured, split: str | None) -> Recorded | None:
    """The run's own evaluation of this state, if it was of this data."""
    if not loaded.is_own_data or split not in (None, _validation_split(loaded.index)):
        return None
    history = loaded.manifest.meta["history"]
    values = next((record.get("val") for record in history if record["step"] == loaded.manifest.step), None)
    return Recorded.of(values, measured.metrics) if values else None
