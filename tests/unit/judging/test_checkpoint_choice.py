from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import UsageError
from starling.trainer.judging.checkpoints import best_epoch

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "step": 10},
    {"epoch": 2, "step": 20, "val": {"kappa": 0.5, "cross_entropy": 0.4}},
    {"epoch": 3, "step": 30, "val": {"kappa": 0.7, "cross_entropy": 0.6}},
    {"epoch": 4, "step": 40, "val": {"kappa": 0.7, "cross_entropy": 0.5}},
]


def test_more_is_better_of_most_metrics_and_the_earliest_of_equals_counts() -> None:
    assert best_epoch(HISTORY, "kappa")["step"] == 30


def test_less_is_better_of_losses() -> None:
    assert best_epoch(HISTORY, "cross_entropy")["step"] == 20


def test_what_is_no_number_is_not_the_best() -> None:
    diverged = [{"epoch": 0, "step": 5, "val": {"kappa": float("nan"), "loss": float("-inf"), "auc": None}}]
    assert best_epoch(diverged + HISTORY, "kappa")["step"] == 30
    with pytest.raises(UsageError, match="--best loss"):
        best_epoch(diverged + HISTORY, "loss")
    with pytest.raises(UsageError, match="--best auc"):
        best_epoch(diverged, "auc")


def test_an_unknown_metric_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="there are: cross_entropy, kappa"):
        best_epoch(HISTORY, "auc")
    with pytest.raises(UsageError, match="no epoch has been evaluated"):
        best_epoch(HISTORY[:1], "kappa")
