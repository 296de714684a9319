from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from starling.trainer.data import decode as decode_module
from starling.trainer.data.decode import Pixels, decode


def photograph(mode: str = "RGB", height: int = 96, width: int = 80) -> Image.Image:
    """Smooth shapes with some grain, as in photographs: what scaling is meant for."""
    down, right = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    shapes = np.stack([down + right, 128 + 90 * np.sin(down / 9), 128 + 90 * np.cos(right / 7)], axis=-1)
    return Image.fromarray((shapes + grain).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes, mode: str) -> Pixels:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("stored", "mode"), [("RGB", "RGB"), ("L", "L"), ("L", "RGB")])
def test_images_of_the_right_size_decode_to_pillow_s_bits(kind: str, stored: str, mode: str) -> None:
    data = encoded(photograph(stored), kind)
    assert np.array_equal(decode(data, mode, (96, 80)), by_pillow(data, mode))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_every_subsampling_and_odd_sizes_decode_to_pillow_s_bits(subsampling: int) -> None:
    data = encoded(photograph(height=71, width=53), "JPEG", subsampling=subsampling, quality=85)
    assert np.array_equal(decode(data, "RGB", (71, 53)), by_pillow(data, "RGB"))


def test_a_jpeg_of_four_colours_is_left_to_pillow() -> None:
    data = encoded(photograph("CMYK"), "JPEG")
    assert np.array_equal(decode(data, "RGB", (96, 80)), by_pillow(data, "RGB"))


@pytest.mark.parametrize("size", [(96, 80), (60, 70), (48, 40), (30, 25), (24, 20), (12, 10), (7, 9), (120, 100)])
def test_scaled_decoding_gives_what_scaling_afterwards_gives(size: tuple[int, int]) -> None:
    data = encoded(photograph(), "JPEG", quality=95)
    wanted = np.asarray(Image.open(io.BytesIO(data)).resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    found = decode(data, "RGB", size)
    assert found.shape == (3, *size)
    assert np.abs(found.astype(int) - wanted).mean() < 4
    assert np.array_equal(found, decode(memoryview(data), "RGB", size))


@pytest.mark.parametrize(
    ("target", "factor"), [((96, 80), 1), ((48, 40), 2), ((49, 40), 1), ((24, 20), 4), ((5, 5), 8)]
)
def test_images_are_divided_as_far_as_both_directions_allow(target: tuple[int, int], factor: int) -> None:
    assert decode_module._factor(96, 80, *target) == factor


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_image_is_refused(kind: str) -> None:
    data = encoded(photograph(), kind)
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode(data[: len(data) // 2], "RGB", (96, 80))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_made_to_fill_the_memory_is_refused_by_its_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 96 * 80 - 1)
    with pytest.raises(ValueError, match="80 x 96 pixels; 7679 are the most"):
        decode(encoded(photograph(), kind), "RGB", (4, 4))
