from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.models.build import build
from starling.trainer.models.torchvision_shim import import_torchvision
from starling.trainer.tasks.options import IMAGENET_PIXELS


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 17), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_cnn_takes_images_of_any_size(size: tuple[int, int], channels: int) -> None:
    model = build("small-cnn", {}, num_classes=7, in_channels=channels)
    assert model(torch.rand(4, channels, *size)).shape == (4, 7)


def test_the_small_cnn_is_made_of_what_makes_exactness_hard() -> None:
    kinds = {type(module) for module in build("small-cnn", {}, num_classes=2, in_channels=1).modules()}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Dropout, nn.Linear} <= kinds


def test_options_shape_the_small_cnn() -> None:
    model = build("small-cnn", {"channels": [4, 6], "dropout": 0.0}, num_classes=3, in_channels=1)
    shapes = [tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim > 1]
    assert shapes == [(4, 1, 3, 3), (6, 4, 3, 3), (3, 6)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"chanels": [4]}, "model.options.chanels: there is no such option; there are channels, dropout"),
        ({"dropout": 1.5}, "model.options.dropout: Input should be less than 1; it is 1.5"),
        ({"channels": []}, "model.options.channels: List should have at least 1 item"),
        ({"channels": [0]}, "model.options.channels.0: Input should be greater than 0"),
    ],
)
def test_wrong_options_of_the_small_cnn_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build("small-cnn", options, num_classes=2, in_channels=1)
    assert str(caught.value).startswith(complaint)


def test_torch_seeds_decide_the_initial_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build("small-cnn", {}, num_classes=2, in_channels=1).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_torchvision_model_gets_the_wanted_inputs_and_outputs(channels: int) -> None:
    model = build("torchvision/resnet18", {}, num_classes=7, in_channels=channels)
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 7)


def test_models_with_a_second_output_are_built_without_it() -> None:
    model = build("torchvision/googlenet", {}, num_classes=7, in_channels=1).train()
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_from_tensorflow_see_pixels_as_they_were_trained_to(name: str) -> None:
    """Pixels that are normalised as torchvision's weights want it come out between -1 and 1."""
    with torch.device("meta"):
        model: Any = build(f"torchvision/{name}", {}, num_classes=2, in_channels=3)
    mean, std = (torch.tensor(IMAGENET_PIXELS[each]).view(1, 3, 1, 1) for each in ("mean", "std"))
    pixels = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(model._transform_input((pixels - mean) / std), 2 * pixels - 1, atol=1e-5, rtol=1e-5)


def test_options_reach_torchvision() -> None:
    model = build("torchvision/squeezenet1_1", {"dropout": 0.25}, num_classes=7, in_channels=3)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("small_cnn", {}, "no model 'small_cnn'; did you mean small-cnn?"),
        ("resnet18", {}, "did you mean torchvision/resnet18"),
        ("torchvision/resnet19", {}, "did you mean .*torchvision/resnet18"),
        ("qqq", {}, "there are small-cnn, efficientnet-lite0, .*and torchvision/<name>"),
        ("torchvision/resnet18", {"depth": 3}, "torchvision's resnet18 refuses .*'depth'"),
        ("torchvision/vit_b_16", {"image_size": 30}, "torchvision's vit_b_16 refuses .*indivisible by patch size"),
        ("torchvision/resnet18", {"weights": "DEFAULT"}, "model.options.weights: cannot be set"),
        ("torchvision/resnet18", {"num_classes": 4}, "model.options.num_classes: cannot be set"),
    ],
)
def test_what_cannot_be_built_is_explained(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build(name, options, num_classes=2, in_channels=3)


def test_torchvision_transforms_work_after_the_import() -> None:
    transforms = import_torchvision().transforms
    assert transforms.CenterCrop(2)(torch.rand(3, 6, 6)).shape == (3, 2, 2)
