"""What an evaluation says about classes, against counting by hand and against scikit-learn."""

from __future__ import annotations

import torch
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from starling.trainer.judging.sorting import CURVE_POINTS, Sorted, areas, describe

NAMES = ["none", "mild", "moderate", "severe"]


def some(count: int = 500, classes: int = 4, positive_from: int | None = 2) -> Sorted:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, classes)
    return Sorted(classes=NAMES[:classes], positive_from=positive_from, probabilities=logits.softmax(1), labels=labels)


def test_precision_recall_and_f1_are_scikit_learns() -> None:
    given = some()
    found = describe(given, str, {}).classes
    expected = precision_recall_fscore_support(given.labels, given.predicted)
    for each, precision, recall, f1, support in zip(found, *expected, strict=True):
        assert (each.precision, each.recall, each.f1, each.support) == (precision, recall, f1, support)


def test_curves_end_in_both_corners_and_hold_the_area() -> None:
    given = some(3000)
    curves = {roc.name: roc for roc in describe(given, str, {}).rocs}
    assert list(curves) == [*NAMES, "moderate or more"]
    for roc in curves.values():
        assert roc.points[0] == (0, 0)
        assert roc.points[-1] == (1, 1)
        assert len(roc.points) <= CURVE_POINTS
        drawn = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(roc.points, roc.points[1:], strict=False))
        assert roc.auc.value is not None
        assert abs(drawn - roc.auc.value) < 2e-3
    positive = (given.labels >= 2).numpy()
    expected = roc_auc_score(positive, given.probabilities[:, 2:].double().sum(1).numpy())
    assert abs((curves["moderate or more"].auc.value or 0) - expected) < 1e-9


def test_two_classes_have_one_curve() -> None:
    assert list(areas(some(classes=2, positive_from=1))) == ["auc of mild"]


def test_a_class_without_samples_has_no_recall_and_no_curve() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    given = Sorted(classes=NAMES[:3], positive_from=None, probabilities=probabilities, labels=torch.tensor([0, 1]))
    sorting = describe(given, str, {})
    empty = sorting.classes[2]
    assert (empty.support, empty.precision, empty.recall, empty.f1) == (0, None, None, None)
    assert sorting.rocs[2].points == []
    assert sorting.rocs[2].auc.value is None
    assert sorting.macro_f1 is None
    assert "auc of moderate" not in areas(given)


def test_the_most_confident_mistakes_come_first() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.99, 0.01]])
    given = Sorted(
        classes=["no", "yes"], positive_from=None, probabilities=probabilities, labels=torch.tensor([1, 1, 1, 0])
    )
    sorting = describe(given, lambda number: f"image {number}", {})
    assert [each.key for each in sorting.mistakes] == ["image 2", "image 0"]
    assert sorting.mistake_count == 2
    assert sorting.mistakes[0].predicted == "no"
    assert abs(sorting.mistakes[0].probability_of_label - 0.2) < 1e-6
    assert sorting.confusion == [[1, 0], [2, 1]]
