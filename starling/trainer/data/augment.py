"""Random shifts and flips: each sample's draw is a pure function of (seed, epoch, sample index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from starling.trainer.seeding import derive_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    shift: int = 0
    """Move each image by up to this many pixels along both axes; what comes in is black."""
    flip: bool = False
    """Mirror every second image, on average, left to right."""

    def apply(self, images: torch.Tensor, indices: Sequence[int], *, seed: int, epoch: int) -> torch.Tensor:
        """Augmented copies of images [b, channels, height, width], of which `indices` are the sample indices."""
        return torch.stack(
            [self._one(image, ("augment", seed, epoch, index)) for image, index in zip(images, indices, strict=True)]
        )

    def _one(self, image: torch.Tensor, sample: tuple[str | int, ...]) -> torch.Tensor:
        mirrored = image.flip(-1) if self.flip and derive_seed(*sample, "flip") % 2 else image
        if not self.shift:
            return mirrored
        down, right = (derive_seed(*sample, axis) % (2 * self.shift + 1) - self.shift for axis in ("down", "right"))
        return _shifted(mirrored, down, right)


def _shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    height, width = image.shape[-2:]
    moved = torch.zeros_like(image)
    if abs(down) < height and abs(right) < width:
        rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height + min(-down, 0))
        columns = slice(max(right, 0), width + min(right, 0)), slice(max(-right, 0), width + min(-right, 0))
        moved[..., rows[0], columns[0]] = image[..., rows[1], columns[1]]
    return moved
