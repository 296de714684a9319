"""The ROC curve and the area under it."""

from __future__ import annotations

import torch

Curve = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def roc_curve(scores: torch.Tensor, positive: torch.Tensor) -> Curve:
    """[n] scores and [n] bool -> (false positive rates, true positive rates, thresholds), each [points] float64.

    Samples whose score is at least the threshold are called positive; the first point (threshold infinite) calls none
    so, the last one all. One point for every distinct score. Raises ValueError if all samples are of one kind.
    """
    positive = positive.bool()
    if positive.all() or not positive.any():
        raise ValueError("a ROC curve needs positive and negative samples")
    scores, order = scores.double().sort(descending=True, stable=True)
    hits = positive[order].double().cumsum(0)
    last_of_its_score = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])
    called = torch.arange(1, len(scores) + 1, dtype=torch.float64)[last_of_its_score]
    hits = hits[last_of_its_score]
    origin = torch.zeros(1, dtype=torch.float64)
    false_rates = torch.cat([origin, (called - hits) / float((~positive).sum())])
    true_rates = torch.cat([origin, hits / float(positive.sum())])
    return false_rates, true_rates, torch.cat([origin + float("inf"), scores[last_of_its_score]])


def auc(scores: torch.Tensor, positive: torch.Tensor) -> float | None:
    """Area under the ROC curve: the chance that a positive sample scores higher than a negative one, ties half. None
    if all samples are of one kind."""
    if bool(positive.all()) or not bool(positive.any()):
        return None
    false_rates, true_rates, _ = roc_curve(scores, positive)
    return float(torch.trapezoid(true_rates, false_rates))


def macro_auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Mean over the classes of [n, classes] of the area for each against the rest; None if one has no sample."""
    areas = [auc(column, labels == index) for index, column in enumerate(probabilities.unbind(dim=1))]
    known = [area for area in areas if area is not None]
    return sum(known) / len(areas) if len(known) == len(areas) else None
