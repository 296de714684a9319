"""An image of the source -> the image that goes into a shard."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from starling.infra.errors import UsageError
from starling.trainer.data.decode import COLOUR_MODES, FORMATS, GREY_MODES, MAX_PIXELS, Inspected, inspect
from starling.trainer.data.retina_crop import retina_box

QUALITY = 90
LARGEST = 8192
"""Pixels a side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendition:
    """What is done to every image. Without `size` and `crop_retina` its bytes are kept as they are."""

    size: int | None = None
    """Side of the square it becomes, pixels."""
    crop_retina: bool = False
    """Cut to the square around the disc of a fundus photograph; other pictures stay whole."""
    quality: int = QUALITY
    """Of the JPEG, 1 to 100."""
    lossless: bool = False
    """PNG images stay PNG."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise UsageError(f"--size {self.size}: give 1 to {LARGEST} pixels")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: give 1 to 100")

    @property
    def keeps_bytes(self) -> bool:
        return self.size is None and not self.crop_retina


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    data: bytes
    kind: Inspected
    suffix: str = ""
    """To put behind the name because the format is not what the name says; else empty."""
    whole: bool = False
    """The retina crop found no disc."""


def render(data: bytes, rendition: Rendition) -> Rendered:
    """Raises whatever Pillow raises on damaged images, and ValueError for kinds of pixels that cannot be used.

    Pictures that are not cropped are padded with black to a square, so that nothing is lost or distorted. The EXIF
    orientation is applied, and left out then, like all other metadata.
    """
    if rendition.keeps_bytes:
        return Rendered(data=data, kind=inspect(data))
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}")
        as_png = opened.format == "PNG" and rendition.lossless
        suffix = ".jpg" if opened.format == "PNG" and not as_png else ""
        if rendition.size is not None:  # have libjpeg leave out what would be thrown away: several times faster
            opened.draft(None, (2 * rendition.size, 2 * rendition.size))
        image = _upright(opened)
    box = retina_box(image) if rendition.crop_retina else None
    square = _square(image, box, rendition)
    encoded = io.BytesIO()
    if as_png:
        square.save(encoded, "PNG")
    else:
        square.save(encoded, "JPEG", quality=rendition.quality)
    kind = Inspected(square.mode == "L", square.height, square.width)
    return Rendered(data=encoded.getvalue(), kind=kind, suffix=suffix, whole=rendition.crop_retina and box is None)


def why_unusable(error: Exception) -> str:
    """What to tell the user about an image that could not be read or decoded; the same words for the same damage."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no PNG or JPEG image"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    if isinstance(error, (OSError, ValueError)):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def _upright(opened: Image.Image) -> Image.Image:
    opened.load()
    if opened.mode not in GREY_MODES + COLOUR_MODES:
        raise ValueError(f"its pixels are of mode {opened.mode}; convert it to 8 bits a channel")
    image = ImageOps.exif_transpose(opened)
    mode = "L" if image.mode in GREY_MODES else "RGB"
    return image.convert(mode)


def _square(image: Image.Image, box: tuple[int, int, int, int] | None, rendition: Rendition) -> Image.Image:
    if box is not None:
        image = image.crop(box)  # black where the square reaches beyond the picture
    if rendition.size is None:
        return image
    side = max(image.width, image.height)
    scale = rendition.size / side
    width, height = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    if width == height:
        return small
    padded = Image.new(image.mode, (rendition.size, rendition.size))
    padded.paste(small, ((rendition.size - width) // 2, (rendition.size - height) // 2))
    return padded
