"""Random changes of training images, in two halves.

`draws` gives every sample a few random numbers, a pure function of (seed, epoch, sample), on the CPU. They travel in
the batch, and `apply` changes the pixels on the device. Only the noise is drawn there, from torch's own generator,
which the loop seeds for every (step, shard).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from starling.trainer.seeding import derive_seed

DRAWS = (
    *("flip", "flip_vertical", "rotate", "down", "right", "zoom", "crop", "crop_down", "crop_right"),
    *("brightness", "contrast", "saturation", "blur", "noise", "gain0", "gain1", "gain2"),
)
"""What each sample's numbers are for; new ones go to the end, so that the others stay what they are."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601)."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """What may happen to an image, and how strongly. The default is nothing."""

    flip: bool = False
    """Mirror every second image, on average, left to right."""
    flip_vertical: bool = False
    """... top to bottom."""
    rotate: float = 0.0
    """Degrees to either side."""
    shift: int = 0
    """Whole pixels along both axes."""
    zoom: Range = (1.0, 1.0)
    """Factor of the size; more than 1 enlarges."""
    crop: float = 1.0
    """Smallest share of each side that is kept; what is kept fills the image."""
    brightness: float = 0.0
    """The image times 1 +- this."""
    contrast: float = 0.0
    """The distance from the image's mean times 1 +- this."""
    saturation: float = 0.0
    """The distance from grey times 1 +- this; colour images only."""
    channel_gain: float = 0.0
    """Each channel times 1 +- this, by itself."""
    blur: Range = (0.0, 0.0)
    """Standard deviation of a Gaussian filter, pixels."""
    noise: Range = (0.0, 0.0)
    """Standard deviation of Gaussian noise; white is 1."""

    def draws(self, indices: Sequence[int], *, seed: int, epoch: int) -> torch.Tensor:
        """[b, len(DRAWS)] float32, uniform in [0, 1): each sample's own numbers."""
        rows = torch.empty(len(indices), len(DRAWS))
        generator = torch.Generator()
        for row, index in zip(rows, indices, strict=True):
            generator.manual_seed(derive_seed("augment", seed, epoch, index))
            row.uniform_(generator=generator)
        return rows

    @torch.no_grad()
    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Changed copies of float images [b, channels, height, width] (black is 0, white 1), on any device.

        What comes in at the edges is black. Values stay in [0, 1] if they were.
        """
        with torch.autocast(images.device.type, enabled=False):
            drawn = dict(zip(DRAWS, draws.to(images.device).unbind(dim=1), strict=True))
            images = self._moved(images.float(), drawn)
            images = self._coloured(images, drawn)
            images = self._blurred(images, drawn["blur"])
            return self._noisy(images, drawn["noise"])

    def _moved(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """All geometry in one resampling, so that the image is blurred once at most."""
        if self.rotate == 0 and self.shift == 0 and self.zoom == (1, 1) and self.crop == 1:
            return self._flipped(images, drawn)
        height, width = images.shape[-2:]
        kept = 1 - (1 - self.crop) * drawn["crop"]
        scale = kept / _between(self.zoom, drawn["zoom"])
        angle = _either_side(drawn["rotate"]) * (math.pi / 180 * self.rotate)
        # From output to input, both in pixels from the image's centre: rotate, scale, then move.
        down = (2 * drawn["crop_down"] - 1) * (1 - kept) * (height / 2) - self._whole_pixels(drawn["down"])
        right = (2 * drawn["crop_right"] - 1) * (1 - kept) * (width / 2) - self._whole_pixels(drawn["right"])
        cos, sin = _column(angle.cos() * scale), _column(angle.sin() * scale)
        y = _column(torch.arange(height, device=images.device) - (height - 1) / 2, dim=1)
        x = _column(torch.arange(width, device=images.device) - (width - 1) / 2, dim=2)
        y, x = _mirrored(y, self.flip_vertical, drawn["flip_vertical"]), _mirrored(x, self.flip, drawn["flip"])
        rows = cos * y + sin * x + _column(down)
        columns = cos * x - sin * y + _column(right)
        grid = torch.stack([columns * (2 / width), rows * (2 / height)], dim=-1)
        return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def _flipped(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mirrors alone need no resampling."""
        for chosen, name, axis in ((self.flip, "flip", -1), (self.flip_vertical, "flip_vertical", -2)):
            if chosen:
                images = torch.where(_pixels(drawn[name] < 0.5), images.flip(axis), images)
        return images

    def _whole_pixels(self, uniform: torch.Tensor) -> torch.Tensor:
        return (uniform * (2 * self.shift + 1)).floor() - self.shift

    def _coloured(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """All of it is affine in a pixel's colour: one matrix for each image, one pass over its pixels."""
        if not (self.brightness or self.contrast or self.saturation or self.channel_gain):
            return images
        batch, channels = images.shape[:2]
        bright, stretch = (_factor(getattr(self, name), drawn[name]) for name in ("brightness", "contrast"))
        matrix = (bright * stretch).view(-1, 1, 1) * torch.eye(channels, device=images.device)
        mean = images.mean(dim=(1, 2, 3))
        offset = (mean * bright * (1 - stretch)).view(-1, 1, 1).expand(-1, channels, 1)
        if self.saturation and channels == len(LUMA):
            vividness = _factor(self.saturation, drawn["saturation"]).view(-1, 1, 1)
            to_grey = torch.tensor(LUMA, device=images.device).expand(channels, channels)
            mix = vividness * torch.eye(channels, device=images.device) + (1 - vividness) * to_grey
            matrix, offset = mix @ matrix, mix @ offset
        gains = [_factor(self.channel_gain, drawn[f"gain{channel}"]) for channel in range(channels)]
        gain = torch.stack(gains, dim=1).view(batch, channels, 1)
        return torch.baddbmm(gain * offset, gain * matrix, images.flatten(2)).clamp_(0, 1).view_as(images)

    def _blurred(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """A filter for each image, as one grouped convolution along each axis; edges are repeated."""
        if self.blur[1] == 0:
            return images
        batch, channels, height, width = images.shape
        # Three standard deviations hold 99.7 % of the filter; a small image holds no more than itself.
        radius = min(math.ceil(3 * self.blur[1]), height - 1, width - 1)
        sigma = _between(self.blur, uniform).clamp(min=1e-3)
        offsets = torch.arange(-radius, radius + 1, device=images.device)
        kernel = torch.exp(-((offsets / sigma[:, None]) ** 2) / 2)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
        flat = images.reshape(1, batch * channels, height, width)
        groups = batch * channels
        flat = functional.conv2d(_edged(flat, 0, radius), kernel.view(groups, 1, -1, 1), groups=groups)
        flat = functional.conv2d(_edged(flat, radius, 0), kernel.view(groups, 1, 1, -1), groups=groups)
        return flat.view_as(images)

    def _noisy(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        if self.noise[1] == 0:
            return images
        strength = _pixels(_between(self.noise, uniform))
        return (images + strength * torch.randn_like(images)).clamp(0, 1)


def _between(bounds: Range, uniform: torch.Tensor) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _either_side(uniform: torch.Tensor) -> torch.Tensor:
    return 2 * uniform - 1


def _factor(strength: float, uniform: torch.Tensor) -> torch.Tensor:
    return 1 + strength * _either_side(uniform)


def _mirrored(axis: torch.Tensor, chosen: bool, uniform: torch.Tensor) -> torch.Tensor:
    return axis * _column(torch.where(uniform < 0.5, -1.0, 1.0)) if chosen else axis


def _pixels(of_each: torch.Tensor) -> torch.Tensor:
    """[b] -> [b, 1, 1, 1]."""
    return of_each.view(-1, 1, 1, 1)


def _column(values: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """[n] -> three dimensions, n along one of them."""
    shape = [1, 1, 1]
    shape[dim] = -1
    return values.view(shape)


def _edged(images: torch.Tensor, sides: int, ends: int) -> torch.Tensor:
    return functional.pad(images, (sides, sides, ends, ends), mode="replicate")
