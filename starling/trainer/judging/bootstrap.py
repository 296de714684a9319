"""Confidence intervals of metrics, from resampled splits.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13); where units hold
several samples, whole units are drawn (the cluster bootstrap: Field and Welsh, JRSS B 69, 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
DEFINED = 0.9
"""Share of the resamples in which a metric must be defined for its interval to be given."""

Metrics = Callable[[torch.Tensor], dict[str, float]]
"""Sample numbers [m] (with repeats) -> metrics of those samples."""


def intervals(
    metrics: Metrics,
    units: Sequence[int] | None,
    count: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, tuple[float, float]]:
    """Name -> (low, high) of every metric that is defined often enough.

    `units`: for each of `count` samples what it is drawn with; None: each by itself.
    """
    drawn: dict[str, list[float]] = {}
    for done, numbers in enumerate(_resampled(units, count, resamples, seed)):
        tick(done + 1)
        for name, value in metrics(torch.from_numpy(numbers)).items():
            if math.isfinite(value):
                drawn.setdefault(name, []).append(value)
    tail = (1 - CONFIDENCE) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in drawn.items()
        if len(values) >= max(DEFINED * resamples, 1)
    }


def _resampled(
    units: Sequence[int] | None, count: int, resamples: int, seed: int
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    generator = np.random.default_rng(seed)
    if units is None:
        for _ in range(resamples):
            yield generator.integers(count, size=count)
        return
    _, unit_of = np.unique(np.asarray(units), return_inverse=True)
    by_unit = np.split(np.argsort(unit_of, kind="stable"), np.cumsum(np.bincount(unit_of))[:-1])
    for _ in range(resamples):
        yield np.concatenate([by_unit[unit] for unit in generator.integers(len(by_unit), size=len(by_unit))])
