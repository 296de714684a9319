"""What pictures are put together from: fields of smooth noise, and canvases on which shapes are drawn.

Everything is measured in pixels of the picture here; x goes to the right, y down.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[np.float32]

SUPERSAMPLING = 2


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """[size, size] noise of about unit variance whose bumps are size/cells pixels wide."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


class Canvas:
    """A layer of densities from 0 to 1 that polygons are drawn on, with soft edges; later ones cover earlier ones."""

    def __init__(self, size: int) -> None:
        self._image = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, outline: Array) -> None:
        """Fill an outline [n, 2]."""
        self._draw.polygon((outline * SUPERSAMPLING).ravel().tolist(), fill=255)

    def ribbons(self, points: Array, widths: Array, densities: Array) -> None:
        """Fill bands along points [n, k, 2] of these widths [n, k] with densities [n], the least dense first; a band
        ends where its width falls to 0."""
        across = _normals(points) * widths[..., None] / 2
        outlines = np.concatenate([points + across, (points - across)[:, ::-1]], axis=1) * SUPERSAMPLING
        ends = np.where((widths <= 0).any(axis=1), np.argmin(widths > 0, axis=1), widths.shape[1])
        for row in np.argsort(densities):
            if (end := ends[row]) >= 2:
                outline = np.concatenate([outlines[row, :end], outlines[row, -end:]])
                self._draw.polygon(outline.ravel().tolist(), fill=round(255 * float(densities[row])))

    def density(self, blur: float = 0) -> Array:
        """[size, size], from 0 to 1; `blur` is a standard deviation in pixels."""
        image = self._image.reduce(SUPERSAMPLING)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        return np.asarray(image, dtype=np.float32) / np.float32(255)


def _normals(points: Array) -> Array:
    """Unit vectors [n, k, 2] across paths of points [n, k, 2]."""
    along = np.gradient(points, axis=1)
    along /= np.maximum(np.hypot(along[..., :1], along[..., 1:]), 1e-6)
    return np.stack([-along[..., 1], along[..., 0]], axis=-1)


def add_bump(layer: Array, centre: tuple[float, float], radii: tuple[float, float], height: float) -> None:
    """Add a Gaussian bump to a layer, in place; radii are its standard deviations along x and y."""
    (x, y), (across, down) = centre, radii
    left, right = _reach(x, across, layer.shape[1])
    top, bottom = _reach(y, down, layer.shape[0])
    columns = np.exp(-0.5 * ((np.arange(left, right, dtype=np.float32) - x) / across) ** 2)
    rows = np.exp(-0.5 * ((np.arange(top, bottom, dtype=np.float32) - y) / down) ** 2)
    layer[top:bottom, left:right] += np.float32(height) * rows[:, None] * columns[None, :]


def _reach(centre: float, deviation: float, size: int) -> tuple[int, int]:
    """The pixels within three standard deviations, as far as they are on the picture."""
    low, high = int(centre - 3 * deviation), int(centre + 3 * deviation) + 2
    return min(max(low, 0), size), min(max(high, 0), size)
