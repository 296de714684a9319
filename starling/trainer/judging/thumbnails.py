"""Samples as small pictures, as far as they are images."""

from __future__ import annotations

import io

import torch
from PIL import Image

from starling.trainer.task import Samples

SIDE = 128
"""Pixels of the longer side."""


def thumbnail(samples: Samples, number: int) -> bytes | None:
    """A JPEG of one sample; None if it is no 8-bit image."""
    pixels = samples.batch([number], seed=0, epoch=None).get("image")
    if pixels is None or pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        return None
    image = Image.fromarray(pixels[0].permute(1, 2, 0).squeeze(2 if pixels.shape[1] == 1 else ()).numpy())
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Of digits of 8 x 8 pixels one wants to see the pixels.
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    data = io.BytesIO()
    image.resize(size, how).save(data, "JPEG", quality=85)
    return data.getvalue()
