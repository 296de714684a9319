"""How a trained network wants to see images that come for another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    mean: Sequence[float]
    std: Sequence[float]
    """Of the pixels (black is 0, white 1): one number, or one for each channel."""
    size: tuple[int, int] | None
    """(height, width) that images are scaled to; None: as they are."""

    def unscaled(self) -> Sight:
        """The same, for a network that takes images of any size."""
        return replace(self, size=None)

    def of(self, images: torch.Tensor) -> torch.Tensor:
        """Images [b, channels, height, width], black 0 and white 1, as the network wants them."""
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = functional.interpolate(images, size=self.size, mode="area")
        mean, std = (torch.tensor(list(each), device=images.device).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return (images - mean) / std
