"""Camera artefacts painted over training images: dust on the lens, light that leaks in at the rim, haze.

What is learned from such images is to grade the eye, not the photograph. The draws are torch's own, which the loop
seeds for every (step, virtual shard).
"""

from __future__ import annotations

import torch

SPOTS = 3
"""Specks of dust on an image."""
_DRAWS = 2 + 4 * SPOTS + 3
"""Whether, how hazy; each speck's place, size and darkness; the leak's angle, size and brightness."""


@torch.no_grad()
def add_artefacts(images: torch.Tensor, share: float) -> torch.Tensor:
    """Images [b, channels, height, width], black 0 and white 1: `share` of them, on average, changed."""
    if share == 0:
        return images
    with torch.autocast(images.device.type, enabled=False):
        drawn = torch.rand(len(images), _DRAWS, device=images.device)
        draws = drawn.view(len(images), _DRAWS, 1, 1).unbind(dim=1)
        height, width = images.shape[-2:]
        y = torch.linspace(-1, 1, height, device=images.device).view(1, height, 1)
        x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, width)
        light = torch.ones(len(images), height, width, device=images.device)
        for spot in range(SPOTS):
            right, down, size, darkness = draws[2 + 4 * spot : 6 + 4 * spot]
            speck = _disc(x - (2 * right - 1), y - (2 * down - 1), 0.01 + 0.05 * size, soft=0.01)
            light = light * (1 - (0.3 + 0.5 * darkness) * speck)
        angle, size, brightness = draws[-3:]
        rim = 2 * torch.pi * angle
        leak = (0.2 + 0.5 * brightness) * _disc(x - rim.cos(), y - rim.sin(), 0.2 + 0.4 * size, soft=0.15)
        haze = 0.3 * draws[1]
        changed = images * (light * (1 - haze)).unsqueeze(1) + (0.5 * haze + leak).unsqueeze(1)
        return torch.where((draws[0] < share).unsqueeze(1), changed.clamp(0, 1), images)


def _disc(x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor, *, soft: float) -> torch.Tensor:
    """1 inside, 0 outside, and a soft edge."""
    return torch.sigmoid((radius - (x * x + y * y).sqrt()) / soft)
