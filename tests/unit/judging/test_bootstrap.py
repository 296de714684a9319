"""Intervals are those of statistics, the same every time, and wider where samples belong together."""

from __future__ import annotations

import torch

from starling.trainer.judging.bootstrap import intervals


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ((low, high),) = intervals(lambda numbers: {"mean": float(values[numbers].mean())}, None, 400).values()
    standard_error = float(values.std()) / 20
    mean = float(values.mean())
    assert abs(low - (mean - 1.96 * standard_error)) < 0.2 * standard_error
    assert abs(high - (mean + 1.96 * standard_error)) < 0.2 * standard_error


def test_equal_samples_of_a_patient_count_once() -> None:
    """Both eyes are always alike here, so that 200 samples are no more than 100: the interval grows by sqrt(2)."""
    half = torch.randn(100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values, patients = half.repeat(2), list(range(100)) * 2

    def width(units: list[int] | None) -> float:
        ((low, high),) = intervals(lambda numbers: {"mean": float(values[numbers].mean())}, units, 200).values()
        return high - low

    assert 1.3 < width(patients) / width(None) < 1.55


def test_the_seed_decides() -> None:
    values = torch.arange(30.0)

    def of(seed: int) -> dict[str, tuple[float, float]]:
        return intervals(lambda numbers: {"mean": float(values[numbers].mean())}, None, 30, seed=seed, resamples=50)

    assert of(0) == of(0)
    assert of(0) != of(1)


def test_a_metric_that_is_rarely_defined_has_no_interval() -> None:
    rare = torch.tensor([1] + [0] * 9)

    def metrics(numbers: torch.Tensor) -> dict[str, float]:
        found = {"always": 1.0, "nan": float("nan")}
        return found | ({"sometimes": 0.5} if rare[numbers].any() else {})

    assert intervals(metrics, None, 10).keys() == {"always"}
