"""Finds the bright disc of a fundus photograph on its dark background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

LOOK = 256
"""The disc is looked for in a picture of at most so many pixels a side."""
DARKEST_PEAK = 25
"""Grey levels: a picture whose brightest percent is darker shows nothing."""
BACKGROUND = 0.12
"""Part of the brightest percent's level up to which a pixel counts as background."""
SPECK = 0.02
"""A row or column with a smaller part of bright pixels is not part of the disc (dust, a date in a corner)."""
FILL = (0.55, 0.97)
"""Part of its bounding box that a disc fills: 0.785 if whole, more if its top and bottom are cut off."""
ASPECT = 1.7
"""A bounding box longer than this times its breadth is no disc, not even one with a side cut off."""
LEAST = 0.3
"""Of the picture's shorter side: a smaller spot is no retina."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; may reach beyond the picture."""


def retina_box(image: Image.Image) -> Box | None:
    """The square around the disc; None if the picture does not look like a fundus photograph."""
    scale = max(image.width, image.height) / LOOK
    small = image if scale <= 1 else image.reduce(max(int(scale), 1))
    pixels = np.asarray(small.convert("RGB")).max(axis=2)
    peak = float(np.percentile(pixels, 99))
    if peak < DARKEST_PEAK:
        return None
    bright = pixels > max(peak * BACKGROUND, 10)
    found = _bounds(bright)
    if found is None or not _is_disc(bright, found):
        return None
    return _square(found, image.width / small.width, image.height / small.height)


def _bounds(bright: npt.NDArray[np.bool_]) -> Box | None:
    rows = np.flatnonzero(bright.mean(axis=1) > SPECK)
    columns = np.flatnonzero(bright.mean(axis=0) > SPECK)
    if not len(rows) or not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _is_disc(bright: npt.NDArray[np.bool_], box: Box) -> bool:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if max(width, height) > ASPECT * min(width, height) or min(width, height) < LEAST * min(bright.shape):
        return False
    inside = bright[top:bottom, left:right]
    if not FILL[0] <= inside.mean() <= FILL[1]:
        return False
    tenth = max(min(width, height) // 12, 1)
    corners = [inside[rows, columns] for rows in _ends(tenth) for columns in _ends(tenth)]
    return sum(corner.mean() < 0.5 for corner in corners) >= 3 and bool(inside[height // 2, width // 2])


def _ends(length: int) -> tuple[slice, slice]:
    return slice(None, length), slice(-length, None)


def _square(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    side = round(max(right - left, bottom - top))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    return x, y, x + side, y + side
