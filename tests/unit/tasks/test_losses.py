from __future__ import annotations

import pytest
import torch

from starling.trainer.tasks.losses import Loss, balanced_weights, cross_entropy


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 3
    return logits.requires_grad_(), torch.arange(40) % 3


def test_weighted_losses_are_those_of_torch() -> None:
    logits, labels = logits_and_labels()
    weights = torch.tensor([0.5, 1.0, 3.0])
    ours = Loss(weights=weights)(cross_entropy(logits, labels), labels)
    theirs = torch.nn.functional.cross_entropy(logits, labels, weight=weights, reduction="none")
    torch.testing.assert_close(ours, theirs)


def test_the_focal_loss_is_the_papers() -> None:
    logits, labels = logits_and_labels()
    right = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
    expected = -((1 - right) ** 2) * right.log()
    ours = Loss(gamma=2.0)(cross_entropy(logits, labels), labels)
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Loss()(cross_entropy(logits, labels), labels), cross_entropy(logits, labels))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_has_gradients_where_the_model_is_sure(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 0])
    Loss(gamma=gamma)(cross_entropy(logits, labels), labels).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0.5


def test_balanced_weights_average_one_and_even_out_the_classes() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [3] * 10)
    weights = balanced_weights(labels, 4, 0.0)
    assert weights[labels].mean().item() == pytest.approx(1, abs=1e-6)
    assert [float(weights[labels][labels == c].sum()) for c in (0, 1, 3)] == pytest.approx([100 / 3] * 3)
    assert weights[2] == 1


def test_balanced_weights_compensate_what_resampling_has_left() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30)
    assert balanced_weights(labels, 2, 1.0).tolist() == [1, 1]
    half = balanced_weights(labels, 2, 0.5)
    assert balanced_weights(labels, 2, 0.0)[0] < half[0] < 1 < half[1] < balanced_weights(labels, 2, 0.0)[1]
