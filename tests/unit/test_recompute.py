"""Blocks of models, and activations that are computed again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.blocks import blocks_of
from starling.trainer.models.build import build
from starling.trainer.recompute import recompute_blocks
from starling.trainer.state import capture


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "some", "count"),
    [
        ("small-cnn", "blocks.1", 3),
        ("torchvision/resnet18", "layer4.1", 8),
        ("torchvision/efficientnet_b0", "features.2.1", 19),  # not the parts of a block, though they have children
        ("torchvision/vit_b_32", "encoder.layers.encoder_layer_11", 13),  # the stack is inside a module of its own
        ("torchvision/densenet121", "features.denseblock1.denselayer2", 61),
    ],
)
def test_blocks_are_what_is_run_as_a_whole(name: str, some: str, count: int) -> None:
    blocks = blocks_of(build(name, {}, num_classes=2, in_channels=3))
    assert some in blocks
    assert len(blocks) == count
    assert not [path for path in blocks for other in blocks if other != path and other.startswith(path + ".")]


def test_blocks_of_a_list_are_found() -> None:
    """A ModuleList cannot be run itself."""
    model = nn.Module()
    model.stages = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)])
    assert list(blocks_of(model)) == ["stages.0", "stages.1", "stages.2"]


def two_steps(name: str, *, again: bool) -> tuple[str, int]:
    """SHA-256 of the state after two steps, and how many bytes of activations the graph of a pass held on to."""
    torch.manual_seed(0)
    model = build(name, {}, num_classes=2, in_channels=3)
    names = list(model.state_dict())
    if again:
        recompute_blocks(model)
    assert list(model.state_dict()) == names
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, foreach=False)
    held = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    for step in range(2):
        torch.manual_seed(step)
        images = torch.randn(2, 3, 64, 64)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(images).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return capture(2, model, optimizer).state_sha256(), held


@pytest.mark.parametrize("name", ["small-cnn", "torchvision/efficientnet_b0", "torchvision/densenet121"])
def test_the_same_bits_with_less_memory(name: str) -> None:
    """BatchNorm (statistics and their counter), dropout, stochastic depth, a list that grows between blocks."""
    kept, again = two_steps(name, again=False), two_steps(name, again=True)
    assert again[0] == kept[0]
    assert again[1] < kept[1] / 2


class Layers(nn.Sequential):
    def __init__(self, *, inplace: bool) -> None:
        layers = [layer for _ in range(4) for layer in (nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(inplace=inplace))]
        super().__init__(*layers)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_long_sequential_is_computed_again_in_pieces(inplace: bool) -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Layers(inplace=inplace)
        if again:
            recompute_blocks(model)
        torch.manual_seed(1)
        model(torch.randn(8, 4)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for kept, computed in zip(*gradients, strict=True):
        assert torch.equal(kept, computed)


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(value.mul_(2))
        return result


def test_a_block_that_changes_its_input_is_refused() -> None:
    """It would be computed again from what it made of its input: wrong gradients, and no error."""
    model = nn.Sequential(nn.Linear(4, 4), Doubling())
    recompute_blocks(model)
    with pytest.raises(UsageError, match="1 changes its input in place"):
        model(torch.randn(2, 4))


def test_a_model_without_blocks_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    with pytest.raises(UsageError, match="has no blocks"):
        recompute_blocks(Flat())
