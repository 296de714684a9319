"""A convolutional network that trains in seconds on a CPU, and has all that makes exactness hard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class SmallCNN(nn.Module):
    """Blocks of convolution, BatchNorm and ReLU, each after the first halving the image; mean, dropout, linear.

    Takes images of any size. Every operation has a deterministic kernel on CUDA: strides instead of pooling.
    """

    def __init__(
        self, *, num_classes: int, in_channels: int, channels: Sequence[int] = (32, 64, 64), dropout: float = 0.1
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.blocks = nn.Sequential(
            *(_block(widths[i], widths[i + 1], stride=1 if i == 0 else 2) for i in range(len(channels)))
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [b, in_channels, height, width] -> logits [b, num_classes]."""
        features = self.blocks(images).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def _block(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
