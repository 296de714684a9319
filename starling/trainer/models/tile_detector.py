"""A detector of small things, learned from tiles that do or do not show one, and then run over whole images.

It has no layer that knows the size of its input: what it learns from 64 x 64 pixels it says of every place of an image
of any size. A tile is judged by its most suspicious places (a smooth maximum, as in Pinheiro and Collobert, "From
image-level to pixel-level labeling with convolutional networks", CVPR 2015), so a lesion of five pixels is not averaged
away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

NONE = "none"
"""The class of tiles that show nothing."""


class TileDetector(nn.Module):
    """Convolution, BatchNorm, ReLU; every block but the first halves the picture. Then one map for each lesion class.

    `none` is the position of the class without lesions among `num_classes`; its logit is 0 everywhere.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        none: int,
        channels: Sequence[int] = (16, 32, 64),
        sharpness: float = 4.0,
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.blocks = nn.Sequential(
            *(_block(widths[i], widths[i + 1], 1 if i == 0 else 2) for i in range(len(channels)))
        )
        self.head = nn.Conv2d(widths[-1], num_classes - 1, kernel_size=1)
        self.none = none
        self.sharpness = sharpness
        """The larger, the more the most suspicious place of a tile counts; towards 0: their mean."""

    @property
    def stride(self) -> int:
        """Pixels of the input between two places of the map."""
        return 1 << (len(self.blocks) - 1)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Tiles [b, in_channels, height, width] -> logits [b, num_classes]."""
        places = self.head(self.blocks(tiles)).float().flatten(2)
        pooled = torch.logsumexp(self.sharpness * places, dim=2) - math.log(places.shape[2])
        return self._with_none(pooled / self.sharpness)

    def probability_map(self, images: torch.Tensor) -> torch.Tensor:
        """Images [b, in_channels, height, width] -> probability of any lesion at every place,
        [b, 1, height / stride, width / stride]."""
        maps = self.head(self.blocks(images)).float()
        nothing = self._with_none(maps).softmax(dim=1)[:, self.none : self.none + 1]
        return 1 - nothing

    def _with_none(self, logits: torch.Tensor) -> torch.Tensor:
        before, after = logits[:, : self.none], logits[:, self.none :]
        return torch.cat([before, torch.zeros_like(logits[:, :1]), after], dim=1)


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
