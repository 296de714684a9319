"""Losses of classifiers: one number a sample, with gradients that are the same every time on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from starling.trainer.data.order import class_counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Cross-entropy; times a weight for each class; times (1 - p)^gamma, where p is the right class's probability
    (focal loss: Lin et al. 2017, "Focal Loss for Dense Object Detection")."""

    weights: torch.Tensor | None = None
    """[classes]."""
    gamma: float = 0.0

    def __call__(self, entropies: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[b] cross-entropies (see `cross_entropy`) and labels -> [b]."""
        losses = entropies
        if self.gamma:
            # Bounded, as the power's slope at 0 is infinite for a gamma below 1.
            losses = losses * (-torch.expm1(-entropies)).clamp(min=1e-6) ** self.gamma
        return losses if self.weights is None else losses * self.weights.to(labels.device)[labels]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[b, classes], [b] -> [b]. Selects by comparing, not by gathering, whose gradient adds atomically on CUDA."""
    chosen = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return -torch.where(chosen, logits.log_softmax(dim=1), 0.0).sum(dim=1)


def balanced_weights(labels: torch.Tensor, classes: int, resample: float) -> torch.Tensor:
    """[classes] float32: n / (K n_c), where n_c of an epoch's n samples are of class c and K classes have any; 1 for a
    class without samples. `resample` is what evens out the epoch already."""
    counts = class_counts(labels, seed=0, epoch=0, strength=resample)  # a class's total is the same in every epoch
    of_class = torch.bincount(labels, counts.double(), minlength=classes)
    present = of_class > 0
    even = float(counts.sum()) / max(1, int(present.sum()))
    return torch.where(present, even / of_class.clamp(min=1), 1.0).float()
