"""The confusion matrix, and the rates that are read off it."""

from __future__ import annotations

import torch


def confusion_matrix(labels: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """[n] true and [n] predicted classes -> int64 [classes, classes]: rows are the truth, columns the prediction."""
    cells = labels.long() * classes + predicted.long()
    return torch.bincount(cells, minlength=classes * classes).view(classes, classes)


def accuracy(confusion: torch.Tensor) -> float | None:
    """Share of samples on the diagonal; None without samples."""
    return _share(confusion.diagonal().sum(), confusion.sum())


def split_at(confusion: torch.Tensor, positive_from: int) -> torch.Tensor:
    """[2, 2]: the classes from `positive_from` on are positive (1), those before it negative (0)."""
    classes = len(confusion)
    side = (torch.arange(classes) >= positive_from).long()
    merged = torch.zeros(2, 2, dtype=torch.int64)
    merged.index_put_((side[:, None].expand(classes, classes), side.expand(classes, classes)), confusion, True)
    return merged


def one_against_rest(confusion: torch.Tensor, positive: int) -> torch.Tensor:
    """[2, 2]: one class is positive (1), all others negative (0)."""
    hit = confusion[positive, positive]
    missed, false = confusion[positive].sum() - hit, confusion[:, positive].sum() - hit
    return torch.stack([torch.stack([confusion.sum() - hit - missed - false, false]), torch.stack([missed, hit])])


def sensitivity(binary: torch.Tensor) -> float | None:
    """Share of the positive samples of a [2, 2] matrix that are predicted so; None if there are none."""
    return _share(binary[1, 1], binary[1].sum())


def specificity(binary: torch.Tensor) -> float | None:
    """Share of the negative samples of a [2, 2] matrix that are predicted so; None if there are none."""
    return _share(binary[0, 0], binary[0].sum())


def _share(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    return float(part) / float(whole) if whole else None
