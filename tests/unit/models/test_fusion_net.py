"""Two frozen networks and a small one over both."""

from __future__ import annotations

import pytest
import torch

from starling.trainer.models.fusion_net import FusionNet
from starling.trainer.models.sight import Sight
from starling.trainer.models.small_cnn import SmallCNN
from starling.trainer.models.tile_detector import TileDetector

MAIN_SIGHT = Sight(mean=[0.5], std=[0.25], size=(16, 16))
DETECTOR_SIGHT = Sight(mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0], size=None)


def build() -> FusionNet:
    torch.manual_seed(0)
    main = SmallCNN(num_classes=5, in_channels=3, channels=(4, 8)).eval().requires_grad_(False)
    detector = TileDetector(num_classes=2, in_channels=3, none=0, channels=(4, 8)).eval().requires_grad_(False)
    return FusionNet(main, MAIN_SIGHT, detector, DETECTOR_SIGHT, num_classes=3, hidden=16, grid=2)


def test_images_of_any_size_become_grades() -> None:
    net = build().eval()
    for side in (16, 40, 64):
        assert net(torch.rand(2, 3, side, side)).shape == (2, 3)
    assert net.lesion_map(torch.rand(2, 3, 40, 48)).shape == (2, 1, 20, 24)


def test_only_the_small_network_is_state_and_learns() -> None:
    net = build()
    frozen = [parameter.clone() for network in net._frozen for parameter in network.state_dict().values()]
    assert {name.split(".")[0] for name in net.state_dict()} == {"norm", "mix", "classifier"}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net.classifier.weight.clone()
    net.train()
    net(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net.classifier.weight, before)
    after = [parameter for network in net._frozen for parameter in network.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(frozen, after, strict=True)), (
        "BatchNorm must not have moved"
    )
    assert not any(module.training for network in net._frozen for module in network.modules())


def test_both_networks_are_heard() -> None:
    net = build().eval()
    images = torch.rand(2, 3, 32, 32)
    before = net(images)
    with torch.no_grad():
        for network in net._frozen:
            for parameter in network.parameters():
                parameter.add_(0.5)
            after = net(images)
            assert not torch.allclose(before, after)
            before = after


def test_each_network_sees_images_as_it_was_trained_to() -> None:
    images = torch.rand(2, 3, 32, 32)
    small = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(MAIN_SIGHT.of(images), (small - 0.5) / 0.25)
    torch.testing.assert_close(DETECTOR_SIGHT.of(images)[:, 2], images[:, 2] - 0.3)
    assert MAIN_SIGHT.unscaled().of(images).shape == images.shape


def test_all_of_it_moves_to_a_device_and_a_type() -> None:
    net = build().to(torch.float64)
    assert {parameter.dtype for network in net._frozen for parameter in network.parameters()} == {torch.float64}
    net.to("meta")
    assert all(parameter.is_meta for network in net._frozen for parameter in network.parameters())


def test_a_main_network_without_a_linear_layer_is_refused() -> None:
    detector = TileDetector(num_classes=2, in_channels=3, none=0)
    with pytest.raises(ValueError, match="no linear layer"):
        FusionNet(torch.nn.Conv2d(3, 3, 1), MAIN_SIGHT, detector, DETECTOR_SIGHT, num_classes=2)
