"""Whether a classifier is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """A reliability diagram: samples in bins of their confidence (the probability of the predicted class)."""

    edges: torch.Tensor
    """[bins + 1] float64, from 0 to 1; a bin holds its upper edge, the first one 0 as well."""
    counts: torch.Tensor
    """[bins] int64."""
    confidence: torch.Tensor
    """[bins] float64: mean of each bin; 0 for an empty one."""
    accuracy: torch.Tensor
    """[bins] float64: share that is right of each bin; 0 for an empty one."""


def reliability(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> Reliability:
    """[n, classes] and [n] -> the diagram, with bins of equal width."""
    confidence, predicted = probabilities.double().max(dim=1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    # A confidence may be 1 + rounding.
    bin_of = torch.bucketize(confidence, edges[1:-1])
    counts = torch.bincount(bin_of, minlength=bins)
    of_each = counts.clamp(min=1).double()
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=torch.bincount(bin_of, confidence, minlength=bins) / of_each,
        accuracy=torch.bincount(bin_of, (predicted == labels).double(), minlength=bins) / of_each,
    )


def expected_calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> float | None:
    """Mean distance of confidence and accuracy, bin by bin (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"); None without samples."""
    if not len(labels):
        return None
    diagram = reliability(probabilities, labels, bins)
    gaps = (diagram.confidence - diagram.accuracy).abs() * diagram.counts
    return float(gaps.sum()) / len(labels)
