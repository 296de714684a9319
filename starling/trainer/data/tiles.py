"""Cuts images into small ones that do or do not show a lesion: what a lesion detector is trained on.

What is written is a source for `starling data prepare`: DIR/<split>/<lesion|none>/<image>-<number>.png. The splits are
those that `prepare` gives the whole images, if it is told the same of them (never one eye of a patient here and the
other there), so a network that is judged on the images has not seen pieces of them through its detector.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import random
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from starling.infra.errors import StarlingError, UsageError
from starling.infra.store.oserrors import os_errors_named
from starling.trainer.data.decode import FORMATS
from starling.trainer.data.plan import split_source
from starling.trainer.data.rendition import why_unusable
from starling.trainer.data.retina_crop import retina_box
from starling.trainer.data.sources.found import FoundImage, LabelTable
from starling.trainer.data.sources.listing import find_images

LESION, NONE = "lesion", "none"
COLUMNS = ("image", "kind", "x", "y", "radius")
MOST_PER_IMAGE = 24
"""Tiles of each class; images with hundreds of lesions would outweigh all others."""
TRIES = 40
"""Random places that are looked at for each tile without a lesion."""
DARK = 24
"""Mean brightness (of 255) below which a tile shows the black around the picture, not the retina."""

Progress = Callable[[str], None]
Box = tuple[int, int]
"""Left and upper edge of a tile, pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A lesion: a circle that holds all of it, in pixels of its image."""

    x: float
    y: float
    radius: float
    where: str = field(default="", compare=False)
    """File and line that it is from."""

    def is_within(self, picture: Image.Image) -> bool:
        """Whether its middle is."""
        return 0 <= self.x <= picture.width and 0 <= self.y <= picture.height

    def moved(self, dx: float, dy: float, scale: float = 1.0) -> Spot:
        """Scaled, then moved."""
        return replace(self, x=self.x * scale + dx, y=self.y * scale + dy, radius=self.radius * scale)

    def touches(self, box: Box, tile: int) -> bool:
        """Whether any of it is in the tile."""
        dx, dy = (max(low - at, 0.0, at - low - tile) for low, at in zip(box, (self.x, self.y), strict=True))
        return dx * dx + dy * dy < self.radius * self.radius


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How tiles are cut."""

    tile: int = 64
    """Pixels a side, after scaling."""
    size: int | None = None
    """Side of the square that images are made to before, as `prepare` does it; None: as they are."""
    crop_retina: bool = False
    """Cut to the disc of the fundus before, as `prepare` does it."""
    per_lesion: int = 2
    """Tiles around each lesion, each moved at random."""
    seed: int = 0
    split: float | None = None
    """Part of each class of whole images that validates, as for `prepare`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """What was cut."""

    splits: dict[str, dict[str, int]]
    """Split -> class -> how many."""
    cut_off: int
    """Lesions around which no tile was cut, as their middle lies outside of the disc that the image was cut to."""


class _OfImage(NamedTuple):
    """What was cut out of one image."""

    split: str
    classes: dict[str, int]
    cut_off: int


def cut_tiles(
    images: str,
    folder: Path,
    lesions: Path,
    cut: Cut,
    *,
    labels: LabelTable | None = None,
    progress: Progress | None = None,
) -> Tiles:
    """Write the tiles.

    `images` and `labels`: as for `prepare`. The same input gives the same tiles. UsageError if `folder` is there
    already, or the table of lesions is not what it should be; then nothing is left behind.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already; remove it, or name another folder for the tiles")
    spots = read_spots(lesions)
    found, _ = split_source(find_images(images, labels), cut.split)
    _check_names(spots, found, lesions)
    half = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(half, ignore_errors=True)
    try:
        with os_errors_named("write", folder), ThreadPoolExecutor() as pool:
            written = list(pool.map(lambda image: _cut_one(image, spots.get(_stem(image.key), []), cut, half), found))
        tiles = _counted(written)
        with os_errors_named("write", folder):
            os.replace(half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    if progress is not None:
        for split, classes in tiles.splits.items():
            progress(f"{split}: " + ", ".join(f"{count} {name}" for name, count in sorted(classes.items())))
    return tiles


def read_spots(path: Path) -> dict[str, list[Spot]]:
    """Name of an image, without suffix -> its lesions. Raises UsageError that names the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--lesions {path}: cannot read it: {error}") from error
    rows = csv.DictReader(io.StringIO(text))
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or [])]:
        raise UsageError(f"--lesions {path}: has no column {missing[0]}; it needs {','.join(COLUMNS)}")
    found: dict[str, list[Spot]] = {}
    for row in rows:
        try:
            where = f"{path}:{rows.line_num}"
            spot = Spot(x=float(row["x"]), y=float(row["y"]), radius=float(row["radius"]), where=where)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--lesions {where}: x, y and radius must be numbers: {error}") from error
        if not (row["image"] and isfinite(spot.x) and isfinite(spot.y) and isfinite(spot.radius) and spot.radius > 0):
            raise UsageError(f"--lesions {where}: give a name, a finite x and y, and a radius above 0")
        found.setdefault(_stem(row["image"]), []).append(spot)
    return found


def _check_names(spots: dict[str, list[Spot]], images: list[FoundImage], path: Path) -> None:
    names = Counter(_stem(image.key) for image in images)
    if unknown := sorted(spots.keys() - names.keys()):
        raise UsageError(f"--lesions {path}: there is no image {unknown[0]} ({len(unknown)} such names)")
    if twice := sorted(name for name, count in names.items() if count > 1):  # their tiles would overwrite each other
        raise UsageError(f"two images are called {twice[0]}: tiles and lesions need names that tell images apart")


def _cut_one(image: FoundImage, spots: list[Spot], cut: Cut, folder: Path) -> _OfImage:
    """Write one image's tiles."""
    picture = _decoded(image)
    _check_places(spots, image, picture)
    picture, spots, middles = _as_prepared(picture, spots, cut)
    if min(picture.size) < cut.tile:
        raise UsageError(f"{image.key}: {picture.width} x {picture.height} pixels are less than a tile of {cut.tile}")
    rng = random.Random(f"tiles {cut.seed} {image.key}")
    with_lesion = _around(middles, picture, cut, rng)
    without = _elsewhere(spots, picture, cut, rng, max(4, len(with_lesion)))
    split = image.split or "train"
    for name, boxes in ((LESION, with_lesion), (NONE, without)):
        place = folder / split / name
        place.mkdir(parents=True, exist_ok=True)
        for number, (left, top) in enumerate(boxes):
            tile = picture.crop((left, top, left + cut.tile, top + cut.tile))
            tile.save(place / f"{_stem(image.key)}-{number:03}.png")
    counts = {LESION: len(with_lesion), NONE: len(without)}
    return _OfImage(split, counts, len(spots) - len(middles))


def _decoded(image: FoundImage) -> Image.Image:
    try:
        with Image.open(io.BytesIO(image.read()), formats=FORMATS) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except StarlingError:
        raise  # the place fails, not the image
    except Exception as error:  # Pillow raises almost anything on damaged input
        raise UsageError(f"{image.key}: cannot be decoded: {why_unusable(error)}") from error


def _check_places(spots: list[Spot], image: FoundImage, picture: Image.Image) -> None:
    """A tile at the nearest edge would be called a lesion, and show none."""
    for spot in spots:
        if not spot.is_within(picture):
            raise UsageError(
                f"--lesions {spot.where}: a lesion at x {spot.x:g}, y {spot.y:g} is outside of {image.key}, which has "
                f"{picture.width} x {picture.height} pixels; give places in pixels of these very images"
            )


def _as_prepared(picture: Image.Image, spots: list[Spot], cut: Cut) -> tuple[Image.Image, list[Spot], list[Spot]]:
    """The picture as it is in a dataset prepared with the same size and crop, its lesions there, and those of them
    whose middle it shows: the detector is to see lesions as large in tiles as in whole images."""
    box = retina_box(picture) if cut.crop_retina else None
    if box is not None:
        picture = picture.crop(box)
        spots = [spot.moved(-box[0], -box[1]) for spot in spots]
    middles = [spot for spot in spots if spot.is_within(picture)]
    if cut.size is None:
        return picture, spots, middles
    scale = cut.size / max(picture.size)
    small = picture.resize(
        (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)), Image.Resampling.LANCZOS
    )
    left, top = (cut.size - small.width) // 2, (cut.size - small.height) // 2
    padded = Image.new("RGB", (cut.size, cut.size))
    padded.paste(small, (left, top))
    spots, middles = ([spot.moved(left, top, scale) for spot in each] for each in (spots, middles))
    return padded, spots, middles


def _around(spots: list[Spot], picture: Image.Image, cut: Cut, rng: random.Random) -> list[Box]:
    """Tiles that hold the middle of a lesion, not always in their own middle."""
    boxes = []
    for spot in rng.sample(spots, min(len(spots), max(1, MOST_PER_IMAGE // cut.per_lesion))):
        for _ in range(cut.per_lesion):
            offsets = [rng.uniform(0.2, 0.8) * cut.tile for _ in range(2)]
            left, top = round(spot.x - offsets[0]), round(spot.y - offsets[1])
            boxes.append((_within(left, picture.width - cut.tile), _within(top, picture.height - cut.tile)))
    return boxes


def _elsewhere(spots: list[Spot], picture: Image.Image, cut: Cut, rng: random.Random, wanted: int) -> list[Box]:
    """Tiles of the retina that no lesion reaches into; fewer than wanted if there is hardly any such place."""
    brightness = np.asarray(picture.convert("L"))
    boxes: list[Box] = []
    for _ in range(TRIES * wanted):
        if len(boxes) == wanted:
            break
        box = rng.randint(0, picture.width - cut.tile), rng.randint(0, picture.height - cut.tile)
        shown = brightness[box[1] : box[1] + cut.tile, box[0] : box[0] + cut.tile]
        if shown.mean() >= DARK and not any(spot.touches(box, cut.tile) for spot in spots):
            boxes.append(box)
    return boxes


def _counted(written: list[_OfImage]) -> Tiles:
    counts: dict[str, dict[str, int]] = {}
    for split, classes, _ in written:
        into = counts.setdefault(split, dict.fromkeys((LESION, NONE), 0))
        for name, count in classes.items():
            into[name] += count
    if not counts.get("train", {}).get(LESION):
        raise UsageError("no image to train on shows a lesion, so there is nothing to cut around")
    return Tiles(splits=dict(sorted(counts.items())), cut_off=sum(image.cut_off for image in written))


def _within(value: int, most: int) -> int:
    return min(max(value, 0), most)


def _stem(key: str) -> str:
    name = posixpath.basename(key)
    return posixpath.splitext(name)[0] if name.lower().endswith((".png", ".jpg", ".jpeg")) else name
