"""The network of Pratt et al. 2016, as far as the paper tells it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from starling.trainer.models.build import build


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48)])
def test_images_of_any_size_give_logits(height: int, width: int) -> None:
    model = build("pratt-cnn", {}, num_classes=5, in_channels=3)
    assert model(torch.rand(2, 3, height, width)).shape == (2, 5)


def test_it_has_ten_convolutions_and_normalises_twice_in_early_blocks() -> None:
    modules = list(build("pratt-cnn", {}, num_classes=5, in_channels=3).modules())
    assert sum(isinstance(each, nn.Conv2d) for each in modules) == 10
    assert sum(isinstance(each, nn.BatchNorm2d) for each in modules) == 2 * 2 + 3
    assert sum(isinstance(each, nn.MaxPool2d) for each in modules) == 5


def test_a_small_one_learns() -> None:
    torch.manual_seed(0)
    model = build("pratt-cnn", {"channels": [4, 8], "dense": 16, "dropout": 0.0}, num_classes=2, in_channels=1)
    labels = torch.tensor([0, 1]).repeat(8)
    images = torch.rand(16, 1, 12, 12) * 0.2 + labels[:, None, None, None] * torch.eye(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
