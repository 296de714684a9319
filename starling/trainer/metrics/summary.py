"""The metrics of a whole split by name, as they are reported after every epoch and by `evaluate`."""

from __future__ import annotations

import torch

from starling.trainer.metrics.calibration import expected_calibration_error
from starling.trainer.metrics.confusion import (
    accuracy,
    confusion_matrix,
    one_against_rest,
    sensitivity,
    specificity,
    split_at,
)
from starling.trainer.metrics.kappa import quadratic_weighted_kappa
from starling.trainer.metrics.roc import auc, macro_auc

CLASSIFICATION_METRICS = (
    *("accuracy", "cross_entropy", "sensitivity", "specificity"),
    *("auc", "calibration_error"),
)
GRADING_METRICS = (*CLASSIFICATION_METRICS, "kappa")


def summarise_classification(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """[n, classes] and [n] -> CLASSIFICATION_METRICS, less what is undefined.

    Of two classes, sensitivity, specificity and AUC are about class 1. Of more, they are means over the classes, each
    against the rest.
    """
    if probabilities.shape[1] == 2:
        return _summary(probabilities, labels, *_from_class(probabilities, labels, 1))
    confusion = _confusion(probabilities, labels)
    each = [one_against_rest(confusion, positive) for positive in range(len(confusion))]
    return _summary(
        probabilities,
        labels,
        _mean([sensitivity(binary) for binary in each]),
        _mean([specificity(binary) for binary in each]),
        macro_auc(probabilities, labels),
    )


def summarise_grading(
    probabilities: torch.Tensor, labels: torch.Tensor, positive_from: int | None = None
) -> dict[str, float]:
    """[n, grades] and [n] -> GRADING_METRICS, less what is undefined.

    Sensitivity, specificity and AUC are about the grades from `positive_from` on against those before (None: 2, or 1
    if there are only two).
    """
    first = positive_from if positive_from is not None else min(2, probabilities.shape[1] - 1)
    found = _summary(probabilities, labels, *_from_class(probabilities, labels, first))
    kappa = quadratic_weighted_kappa(_confusion(probabilities, labels))
    return found if kappa is None else {**found, "kappa": kappa}


def cross_entropy(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Mean of -log(probability of the right class), bounded where that is 0; None without samples."""
    if not len(labels):
        return None
    least = torch.finfo(torch.float32).tiny
    right = probabilities.double().gather(1, labels.long()[:, None]).clamp(min=least)
    return float(-right.log().sum()) / len(labels)


def _summary(
    probabilities: torch.Tensor,
    labels: torch.Tensor,
    sensitive: float | None,
    specific: float | None,
    area: float | None,
) -> dict[str, float]:
    found = {
        "accuracy": accuracy(_confusion(probabilities, labels)),
        "cross_entropy": cross_entropy(probabilities, labels),
        "sensitivity": sensitive,
        "specificity": specific,
        "auc": area,
        "calibration_error": expected_calibration_error(probabilities, labels),
    }
    return {name: value for name, value in found.items() if value is not None}


def _from_class(
    probabilities: torch.Tensor, labels: torch.Tensor, first: int
) -> tuple[float | None, float | None, float | None]:
    binary = split_at(_confusion(probabilities, labels), first)
    positive = probabilities.double()[:, first:].sum(dim=1)
    return sensitivity(binary), specificity(binary), auc(positive, labels >= first)


def _confusion(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return confusion_matrix(labels, probabilities.argmax(dim=1), probabilities.shape[1])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(values) if len(known) == len(values) else None
