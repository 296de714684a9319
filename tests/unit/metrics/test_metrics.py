"""Every metric against a library that people trust."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from starling.trainer.metrics.calibration import expected_calibration_error, reliability
from starling.trainer.metrics.confusion import confusion_matrix, one_against_rest, sensitivity, specificity, split_at
from starling.trainer.metrics.kappa import quadratic_weighted_kappa
from starling.trainer.metrics.roc import auc, macro_auc, roc_curve
from starling.trainer.metrics.summary import (
    CLASSIFICATION_METRICS,
    GRADING_METRICS,
    cross_entropy,
    summarise_classification,
    summarise_grading,
)
from starling.trainer.models.torchvision_shim import declare_missing_operators


def outputs(classes: int, n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that know something of the labels, with ties among them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator).round(decimals=1)
    logits[torch.arange(n), labels] += 1
    return logits.double().softmax(dim=1), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_confusion_and_kappa(classes: int) -> None:
    probabilities, labels = outputs(classes)
    predicted = probabilities.argmax(1)
    ours = confusion_matrix(labels, predicted, classes)
    assert ours.tolist() == reference.confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    expected = reference.cohen_kappa_score(labels, predicted, weights="quadratic")
    assert quadratic_weighted_kappa(ours) == pytest.approx(expected, abs=1e-12)


def test_kappa_needs_two_classes() -> None:
    assert quadratic_weighted_kappa(torch.tensor([[7, 0], [0, 0]])) is None
    assert quadratic_weighted_kappa(torch.zeros(3, 3, dtype=torch.int64)) is None
    assert quadratic_weighted_kappa(torch.tensor([[0, 7], [0, 0]])) == 0
    assert quadratic_weighted_kappa(torch.tensor([[0, 5], [5, 0]])) == -1


def test_the_roc_curve_and_its_area() -> None:
    probabilities, labels = outputs(2)
    ours = roc_curve(probabilities[:, 1], labels == 1)
    expected = reference.roc_curve(labels, probabilities[:, 1], drop_intermediate=False)
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-12)
    area = reference.roc_auc_score(labels, probabilities[:, 1])
    assert auc(probabilities[:, 1], labels == 1) == pytest.approx(area, abs=1e-12)


def test_the_mean_area_of_many_classes() -> None:
    probabilities, labels = outputs(4)
    expected = reference.roc_auc_score(labels, probabilities.numpy(), multi_class="ovr", labels=range(4))
    assert macro_auc(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_areas_need_both_kinds() -> None:
    scores = torch.tensor([0.1, 0.2])
    assert auc(scores, torch.tensor([True, True])) is None
    assert auc(scores, torch.tensor([False, False])) is None
    assert macro_auc(torch.rand(4, 3), torch.tensor([0, 1, 1, 0])) is None
    with pytest.raises(ValueError, match="positive and negative"):
        roc_curve(scores, torch.tensor([True, True]))


@pytest.mark.parametrize("first", [1, 2, 4])
def test_rates_from_a_grade_on(first: int) -> None:
    probabilities, labels = outputs(5)
    predicted = probabilities.argmax(1)
    binary = split_at(confusion_matrix(labels, predicted, 5), first)
    assert sensitivity(binary) == pytest.approx(reference.recall_score(labels >= first, predicted >= first))
    assert specificity(binary) == pytest.approx(reference.recall_score(labels < first, predicted < first))


def test_rates_of_one_class_against_the_rest() -> None:
    probabilities, labels = outputs(3)
    predicted = probabilities.argmax(1)
    binary = one_against_rest(confusion_matrix(labels, predicted, 3), 1)
    assert binary.tolist() == reference.confusion_matrix(labels == 1, predicted == 1).tolist()


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error(classes: int) -> None:
    declare_missing_operators()  # torchmetrics imports torchvision
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, labels = outputs(classes)
    expected = torchmetrics.multiclass_calibration_error(
        probabilities, labels, num_classes=classes, n_bins=15, norm="l1"
    )
    assert expected_calibration_error(probabilities, labels) == pytest.approx(float(expected), abs=1e-6)


def test_certainty_is_in_the_last_bin() -> None:
    diagram = reliability(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0, 0]), bins=2)
    assert diagram.counts.tolist() == [1, 1]
    assert diagram.confidence.tolist() == [0.5, 1.0]
    assert diagram.accuracy.tolist() == [1.0, 1.0]


def test_cross_entropy_is_bounded() -> None:
    probabilities, labels = outputs(3)
    expected = reference.log_loss(labels, probabilities.numpy())
    assert cross_entropy(probabilities, labels) == pytest.approx(expected, abs=1e-5)
    impossible = cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert impossible is not None
    assert 80 < impossible < 90


def test_summaries_hold_every_metric() -> None:
    for classes in (2, 4):
        probabilities, labels = outputs(classes)
        classification, grading = (
            summarise_classification(probabilities, labels),
            summarise_grading(probabilities, labels),
        )
        assert set(classification) == set(CLASSIFICATION_METRICS)
        assert set(grading) == set(GRADING_METRICS)
        assert classification["accuracy"] == pytest.approx(reference.accuracy_score(labels, probabilities.argmax(1)))
    recall = reference.recall_score(labels, probabilities.argmax(1), average="macro")
    assert classification["sensitivity"] == pytest.approx(recall)


def test_undefined_metrics_are_left_out() -> None:
    probabilities, _ = outputs(3, n=10)
    found = summarise_grading(probabilities, torch.zeros(10, dtype=torch.int64), positive_from=1)
    assert set(found) == {"accuracy", "cross_entropy", "specificity", "calibration_error", "kappa"}
    only = torch.tensor([[1.0, 0.0]])
    assert set(summarise_grading(only, torch.tensor([0]))) == {
        *("accuracy", "cross_entropy", "specificity", "calibration_error")
    }
    assert summarise_classification(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == {}
