"""The 1,797 handwritten digits that scikit-learn ships, 8 x 8 pixels: data that is always there."""

from __future__ import annotations

import functools
import io

from PIL import Image

from starling.infra.errors import UsageError
from starling.trainer.data.sources.found import FoundImage, Source

DIGITS = "digits"


def digits() -> Source:
    """All of them as PNG. UsageError if scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    found = load_digits()
    pixels = (found.images * (255 / 16)).round().astype("uint8")
    images = []
    for number, (image, label) in enumerate(zip(pixels, found.target, strict=True)):
        data = _png(Image.fromarray(image))
        read = functools.partial(bytes, data)
        images.append(
            FoundImage(class_name=str(label), key=f"{label}/{number:04}.png", size=len(data), stamp="", read=read)
        )
    return Source(description=DIGITS, layout=DIGITS, images=images)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)  # uncompressed: the bytes do not depend on the zlib in use
    return buffer.getvalue()
