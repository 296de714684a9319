"""Bytes of an image -> pixels. PNG and JPEG only: no other parser ever sees bytes from a store.

JPEGs go through libjpeg-turbo (simplejpeg, with the settings that give Pillow's bits), straight into the batch where
the size fits. Where the target is at most half the size in both directions, they are decoded at 1/2, 1/4 or 1/8, which
spares most of the work behind the entropy decoder. All of it is integer arithmetic: the bits depend on the versions of
the libraries, which the device fingerprint holds, and not on the processor.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from starling.trainer.data.index import ImageFormat

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
MAX_PIXELS = 128 << 20
"""More than any camera has; an image of more is made to fill the memory."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit above says what is too much

_JPEG = b"\xff\xd8\xff"
_FOUR_CHANNELS = ("CMYK", "YCCK")


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an image is stored as."""

    grey: bool
    height: int
    width: int


def inspect(data: bytes) -> Inspected:
    """Decode an image completely, to find out whether that works. Raises whatever Pillow raises, and ValueError."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_bombs(image.height, image.width)
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


def decode(data: bytes | memoryview, mode: str, size: tuple[int, int]) -> Pixels:
    """Pixels as uint8 [channels, height, width]; scaled (bilinear) if the image's size is not (height, width)."""
    pixels = np.empty((*size, 1 if mode == "L" else 3), np.uint8)
    decode_into(data, pixels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_into(data: bytes | memoryview, target: Pixels) -> None:
    """Fill `target` [height, width, channels], contiguous, of 1 or 3 channels; scaled if need be.

    Raises OSError, SyntaxError or ValueError for what is no image.
    """
    if bytes(data[:3]) == _JPEG and _decode_jpeg(data, target):
        return
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        _refuse_bombs(opened.height, opened.width)
        mode = "L" if target.shape[2] == 1 else "RGB"
        _scale_into(opened if opened.mode == mode else opened.convert(mode), target)


def _decode_jpeg(data: bytes | memoryview, target: Pixels) -> bool:
    """False if it has to be left to Pillow: four colours, or damage that Pillow may forgive."""
    height, width, channels = target.shape
    colours = "GRAY" if channels == 1 else "RGB"
    try:
        stored_height, stored_width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space in _FOUR_CHANNELS:
            return False
        _refuse_bombs(stored_height, stored_width)
        if (stored_height, stored_width) == (height, width):
            simplejpeg.decode_jpeg(data, colours, buffer=target)
            return True
        factor = _factor(stored_height, stored_width, height, width)
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=height, min_width=width, min_factor=factor)
    except BombError:
        raise
    except ValueError:
        return False
    if pixels.shape == target.shape:
        target[:] = pixels
    else:
        _scale_into(Image.fromarray(pixels if channels == 3 else pixels[..., 0]), target)
    return True


def _factor(stored_height: int, stored_width: int, height: int, width: int) -> int:
    """By how much to divide while decoding: the most of 8, 4, 2 and 1 that leaves both directions large enough."""
    return next(
        (f for f in (8, 4, 2) if -(-stored_height // f) >= height and -(-stored_width // f) >= width),
        1,
    )


def _scale_into(image: Image.Image, target: Pixels) -> None:
    height, width, channels = target.shape
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    target[:] = pixels if channels == 3 else pixels[..., None]


class BombError(ValueError):
    """An image of more pixels than any can have."""


def _refuse_bombs(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BombError(f"it has {width} x {height} pixels; {MAX_PIXELS} are the most that is read")
