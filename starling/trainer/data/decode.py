"""Bytes of an image -> pixels. PNG and JPEG only: no other parser of Pillow ever sees bytes from a store."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from starling.trainer.data.index import ImageFormat

FORMATS = ("PNG", "JPEG")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an image is stored as."""

    grey: bool
    height: int
    width: int


def inspect(data: bytes) -> Inspected:
    """Decode an image completely, to find out whether that works. Raises whatever Pillow raises, and ValueError."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        if image.mode not in GREY_MODES + COLOUR_MODES:
            raise ValueError(f"its pixels are of mode {image.mode}; convert it to 8 bits a channel")
        return Inspected(image.mode in GREY_MODES, image.height, image.width)


def common_format(images: Iterable[Inspected]) -> ImageFormat:
    """What all these decode to: grey only if all are grey, a size only if all have it."""
    kinds = set(images)
    mode: Literal["L", "RGB"] = "L" if all(kind.grey for kind in kinds) else "RGB"
    sizes = {(kind.height, kind.width) for kind in kinds}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return ImageFormat(mode=mode, height=height, width=width)


def decode(data: bytes, mode: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pixels as uint8 [channels, height, width]; scaled (bilinear) if the image's size is not (height, width)."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        image = opened if opened.mode == mode else opened.convert(mode)
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
