from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from starling.infra.errors import UsageError
from starling.trainer.data.rendition import Rendition, render, why_unusable
from starling.trainer.data.retina_crop import retina_box


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def fundus(width: int, height: int, box: tuple[int, int, int, int], level: int = 140) -> Image.Image:
    """A disc on a nearly black background with the noise of a camera; a box beyond the picture is cut off."""
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).ellipse(box, fill=(level, level // 2, level // 4))
    noise = np.random.default_rng(0).integers(0, 6, (height, width, 3))
    return Image.fromarray(np.minimum(np.asarray(image) + noise, 255).astype(np.uint8))


def test_a_disc_is_found_wherever_it_lies() -> None:
    box = retina_box(fundus(1200, 800, (300, 100, 900, 700)))
    assert box is not None
    assert np.allclose(box, (300, 100, 900, 700), atol=8)


def test_a_disc_whose_top_and_bottom_are_cut_off_gives_a_square_beyond_the_picture() -> None:
    box = retina_box(fundus(1200, 700, (200, -50, 1000, 750)))
    assert box is not None
    assert np.allclose(box, (200, -50, 1000, 750), atol=10)


def test_a_dark_photograph_is_cropped_too() -> None:
    assert retina_box(fundus(600, 400, (150, 50, 450, 350), level=45)) is not None


def test_the_real_photograph_of_scikit_image_is_cropped_to_its_disc() -> None:
    import skimage.data

    retina = Image.fromarray(np.asarray(skimage.data.retina()))  # type: ignore[no-untyped-call]
    wide = Image.new("RGB", (2400, 1500), (4, 3, 2))
    wide.paste(retina, (500, 40))
    box = retina_box(wide)
    assert box is not None
    assert np.allclose(box, (500, 40, 500 + retina.width, 40 + retina.height), atol=0.03 * retina.width)


@pytest.mark.parametrize("picture", ["astronaut", "coffee", "text", "moon", "page", "rocket", "cat"])
def test_other_pictures_stay_whole(picture: str) -> None:
    from skimage import data

    assert retina_box(Image.fromarray(getattr(data, picture)()).convert("RGB")) is None


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (50, 40)), Image.new("RGB", (50, 40), "white"), Image.new("L", (1, 1), 200)],
    ids=["black", "white", "one pixel"],
)
def test_pictures_of_nothing_stay_whole(picture: Image.Image) -> None:
    assert retina_box(picture) is None


def test_without_a_wish_the_bytes_are_kept() -> None:
    data = encoded(Image.new("RGB", (7, 5), "red"), "JPEG")
    assert render(data, Rendition()).data == data


def test_a_cropped_image_is_square_and_full_of_retina() -> None:
    rendered = render(encoded(fundus(1200, 800, (300, 100, 900, 700)), "JPEG"), Rendition(size=64, crop_retina=True))
    image = opened(rendered.data)
    assert (image.format, image.size, rendered.whole, rendered.suffix) == ("JPEG", (64, 64), False, "")
    pixels = np.asarray(image.convert("L"))
    assert pixels[32, 3] > 50 < pixels[3, 32]
    assert pixels[1, 1] < 20


def test_an_image_that_is_not_cropped_is_padded_with_black() -> None:
    rendered = render(encoded(Image.new("RGB", (200, 100), "white")), Rendition(size=40, crop_retina=True))
    pixels = np.asarray(opened(rendered.data).convert("L"))
    assert rendered.whole
    assert pixels.shape == (40, 40)
    assert pixels[20, 2] > 250 > 5 > pixels[2, 20]
    assert rendered.suffix == ".jpg"  # a PNG became a JPEG


def test_png_stays_png_if_lossless_is_asked() -> None:
    rendered = render(encoded(Image.new("L", (20, 20), 77)), Rendition(size=10, lossless=True))
    assert opened(rendered.data).format == "PNG"
    assert (rendered.suffix, rendered.kind.grey) == ("", True)
    assert np.asarray(opened(rendered.data)).tolist() == [[77] * 10] * 10


def test_the_camera_was_held_upright_says_the_image_and_becomes_so() -> None:
    lying = Image.new("L", (40, 20))
    lying.paste(255, (0, 0, 20, 20))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: then the upper half is white
    rendered = render(encoded(lying, "JPEG", exif=exif), Rendition(size=40))
    pixels = np.asarray(opened(rendered.data))
    assert pixels[5, 20] > 200 > 50 > pixels[35, 20]
    assert not opened(rendered.data).getexif()


def test_quality_decides_the_size() -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    assert len(render(data, Rendition(size=64, quality=30)).data) < len(render(data, Rendition(size=64)).data)


def test_sixteen_bits_are_refused() -> None:
    data = encoded(Image.fromarray(np.zeros((6, 5), dtype=np.uint16)))
    for rendition in (Rendition(), Rendition(size=4)):
        with pytest.raises(ValueError, match="convert it to 8 bits"):
            render(data, rendition)


def test_the_reason_for_what_is_no_image_names_no_address() -> None:
    with pytest.raises(OSError, match="cannot identify") as caught:
        render(b"not a picture", Rendition())
    assert why_unusable(caught.value) == "it is no PNG or JPEG image"


@pytest.mark.parametrize(("size", "quality"), [(0, 90), (9000, 90), (64, 0), (64, 101)])
def test_impossible_wishes_are_refused(size: int, quality: int) -> None:
    with pytest.raises(UsageError, match=r"--size|--quality"):
        Rendition(size=size, quality=quality)
