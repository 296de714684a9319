"""Agreement of ordered classes beyond chance."""

from __future__ import annotations

import torch


def quadratic_weighted_kappa(confusion: torch.Tensor) -> float | None:
    """Cohen's kappa (1968) with weights (i - j)^2, of a confusion matrix [classes, classes].

    1 is agreement, 0 what chance would give. None if chance could not disagree: without samples, or if all of them
    are, and are predicted to be, of one class.
    """
    observed = confusion.double()
    grades = torch.arange(len(confusion), dtype=torch.float64)
    distance = (grades[:, None] - grades[None, :]) ** 2
    expected = torch.outer(observed.sum(dim=1), observed.sum(dim=0)) / max(1.0, float(observed.sum()))
    by_chance = float((distance * expected).sum())
    return 1 - float((distance * observed).sum()) / by_chance if by_chance else None
