"""How a classifier sorts a split: its confusion, curves, calibration and worst mistakes, as plain records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from starling.trainer.judging.evaluation import Bin, ClassScores, Metric, Mistake, Roc, Sorting
from starling.trainer.metrics.calibration import expected_calibration_error, reliability
from starling.trainer.metrics.confusion import confusion_matrix
from starling.trainer.metrics.roc import auc, roc_curve

CURVE_POINTS = 200
MISTAKES = 24
AREA = "auc of "
"""What the area of a named curve is called among the metrics that are resampled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sorted:
    """What a classifier made of n samples; on the CPU."""

    classes: list[str]
    positive_from: int | None
    """First class that counts as positive; None: classes have no order."""
    probabilities: torch.Tensor
    """[n, classes]."""
    labels: torch.Tensor
    """[n] int64."""

    @property
    def predicted(self) -> torch.Tensor:
        return self.probabilities.argmax(dim=1)

    def at(self, numbers: torch.Tensor) -> Sorted:
        """Only these samples, in this order."""
        return Sorted(
            classes=self.classes,
            positive_from=self.positive_from,
            probabilities=self.probabilities[numbers],
            labels=self.labels[numbers],
        )

    def questions(self) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """(name, scores [n], positive [n]) of every yes-or-no question that has a ROC curve."""
        found = [
            (name, self.probabilities[:, number], self.labels == number) for number, name in enumerate(self.classes)
        ]
        if len(self.classes) == 2:
            return found[1:]  # the other one is its mirror image
        first = self.positive_from
        if first is not None and 0 < first < len(self.classes) - 1:  # else it is one class against the rest
            name = f"{self.classes[first]} or more"
            found.append((name, self.probabilities.double()[:, first:].sum(dim=1), self.labels >= first))
        return found


def areas(given: Sorted) -> dict[str, float]:
    """The area under every curve that is defined, by the name it is resampled under."""
    found = {AREA + name: auc(scores, positive) for name, scores, positive in given.questions()}
    return {name: area for name, area in found.items() if area is not None}


def describe(given: Sorted, key_of: Callable[[int], str], interval_of: dict[str, tuple[float, float]]) -> Sorting:
    """Everything about it; `interval_of` has the intervals of `areas`."""
    confusion = confusion_matrix(given.labels, given.predicted, len(given.classes))
    classes = [_scores(name, confusion, number) for number, name in enumerate(given.classes)]
    f1s = [each.f1 for each in classes]
    wrong = _wrong(given)
    return Sorting(
        classes=classes,
        confusion=confusion.tolist(),
        macro_f1=sum(f1 for f1 in f1s if f1 is not None) / len(f1s) if None not in f1s else None,
        rocs=[_roc(*question, interval_of) for question in given.questions()],
        calibration=_bins(given),
        calibration_error=expected_calibration_error(given.probabilities, given.labels) or 0.0,
        mistake_count=len(wrong),
        mistakes=[_mistake(given, number, key_of(number)) for number in wrong[:MISTAKES]],
    )


def _scores(name: str, confusion: torch.Tensor, number: int) -> ClassScores:
    hits, support, predicted = (
        int(confusion[number, number]),
        int(confusion[number].sum()),
        int(confusion[:, number].sum()),
    )
    return ClassScores(
        name=name,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + predicted) if support + predicted else None,
    )


def _roc(name: str, scores: torch.Tensor, positive: torch.Tensor, interval_of: dict[str, tuple[float, float]]) -> Roc:
    low, high = interval_of.get(AREA + name, (None, None))
    area = auc(scores, positive)
    points = _thinned(scores, positive) if area is not None else []
    positives = int(positive.sum())
    return Roc(
        name=name,
        positives=positives,
        negatives=len(positive) - positives,
        auc=Metric(value=area, low=low, high=high),
        points=points,
    )


def _thinned(scores: torch.Tensor, positive: torch.Tensor) -> list[tuple[float, float]]:
    """Points evenly apart along the curve; both ends always."""
    x, y, _ = roc_curve(scores, positive)
    if len(x) > CURVE_POINTS:
        along = x + y  # from 0 to 2, never falling
        wanted = torch.linspace(0, 2, CURVE_POINTS, dtype=along.dtype)
        chosen = torch.searchsorted(along.contiguous(), wanted).clamp(max=len(along) - 1).unique()
        x, y = x[chosen], y[chosen]
    return [(round(a, 5), round(b, 5)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]


def _bins(given: Sorted) -> list[Bin]:
    diagram = reliability(given.probabilities, given.labels)
    edges, counts = diagram.edges.tolist(), diagram.counts.tolist()
    rows = zip(edges, edges[1:], counts, diagram.confidence.tolist(), diagram.accuracy.tolist(), strict=False)
    return [
        Bin(low=low, high=high, count=n, confidence=said if n else None, accuracy=was if n else None)
        for low, high, n, said, was in rows
    ]


def _wrong(given: Sorted) -> list[int]:
    """Numbers of the samples that are sorted wrongly, the most confident first."""
    wrong = (given.predicted != given.labels).nonzero().flatten()
    confidence = given.probabilities[wrong].max(dim=1).values if len(wrong) else torch.zeros(0)
    order: Sequence[int] = wrong[confidence.sort(descending=True, stable=True).indices].tolist()
    return list(order)


def _mistake(given: Sorted, number: int, key: str) -> Mistake:
    label, predicted = int(given.labels[number]), int(given.predicted[number])
    return Mistake(
        number=number,
        key=key,
        label=given.classes[label],
        predicted=given.classes[predicted],
        probability=float(given.probabilities[number, predicted]),
        probability_of_label=float(given.probabilities[number, label]),
    )
