"""The network of Pratt et al., "Convolutional Neural Networks for Diabetic Retinopathy", Procedia Computer Science 90
(2016) 200-205: ten convolutions, trained from scratch.

After the paper: convolutions of 3x3 in blocks that end with a 3x3 maximum at stride 2, batch normalisation after every
convolution in the early blocks and once a block later, leaky ReLU with slope 0.01, Gaussian initialisation, dropout on
the dense layers. Ours: the widths, and a mean over all positions where the paper flattens, so that images may have any
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

SLOPE = 0.01
EARLY_BLOCKS = 2
"""Those that normalise after every convolution."""


class PrattCNN(nn.Module):
    """Two convolutions for each width, then two dense layers and the classifier."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        dense: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.blocks = nn.Sequential(
            *(_block(widths[i], widths[i + 1], early=i < EARLY_BLOCKS) for i in range(len(channels)))
        )
        self.dense = nn.Sequential(*_dense(widths[-1], dense, dropout), *_dense(dense, dense, dropout))
        self.classifier = nn.Linear(dense, num_classes)
        self.apply(_initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [b, in_channels, height, width] -> logits [b, num_classes]."""
        features = self.blocks(images).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(self.dense(features))
        return logits


def _block(in_channels: int, out_channels: int, *, early: bool) -> nn.Sequential:
    between = [nn.BatchNorm2d(out_channels)] if early else []
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        *between,
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def _dense(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE, inplace=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
