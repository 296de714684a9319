"""The images of the data benchmark: JPEGs of about 100 KB that compress as photographs of an eye do."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

PIXELS = 512
QUALITY = 90
NOISE = 11.5
"""Standard deviation of the grain, in grey levels: what makes a file of 512 x 512 pixels about 100 KB."""
CLASSES = 5
SCENES = 16
"""So many backgrounds; the light and the grain are each image's own."""
PROCESSES = 2

Floats = npt.NDArray[np.float32]


def write_images(folder: Path, count: int, pixels: int = PIXELS) -> list[Path]:
    """Write them as `<folder>/train/<class>/<number>.jpg`; the same bytes every time. Returns the paths, in order."""
    for label in range(CLASSES):
        (folder / "train" / f"grade-{label}").mkdir(parents=True)
    paths = [folder / "train" / f"grade-{i % CLASSES}" / f"{i:05}.jpg" for i in range(count)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        for path, content in zip(paths, pool.map(partial(_jpeg, pixels), range(count), chunksize=32), strict=True):
            path.write_bytes(content)
    return paths


def _jpeg(pixels: int, number: int) -> bytes:
    random = np.random.default_rng(number)
    down, across = random.integers(0, pixels, 2)
    image = _scene(pixels, number % SCENES) * np.float32(random.uniform(0.8, 1.1))
    image += _grain(pixels)[down : down + pixels, across : across + pixels]
    stream = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


@cache
def _scene(pixels: int, number: int) -> Floats:
    """A disc in orange and red with some dark spots, brighter towards one side: float32 [pixels, pixels, 3]."""
    random = np.random.default_rng([number, pixels])
    across, down = np.meshgrid(*[np.linspace(-1, 1, pixels, dtype=np.float32)] * 2)
    light = 1 - 0.4 * (across * random.uniform(-1, 1) + down * random.uniform(-1, 1))
    for x, y in random.uniform(-0.7, 0.7, (12, 2)):
        light *= 1 - 0.3 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / 0.004)
    light[across**2 + down**2 > 1] = 0
    scene: Floats = (light[..., None] * np.array([190, 95, 45])).astype(np.float32)
    return scene


@cache
def _grain(pixels: int) -> Floats:
    """Noise from which every image cuts its piece: drawing it anew for each takes longer than all the rest."""
    grain: Floats = np.random.default_rng(0).normal(0, NOISE, (2 * pixels, 2 * pixels, 3)).astype(np.float32)
    return grain
