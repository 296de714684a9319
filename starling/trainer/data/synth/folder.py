"""A folder of rendered photographs with their labels, in the layout of Kaggle's diabetic retinopathy data.

Every file is written whole or not at all. The tables come last, so that a folder with trainLabels.csv is complete; the
same command again renders what is missing, and more images may be added to a folder later.
"""

from __future__ import annotations

import csv
import errno
import io
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from starling.infra.errors import NoRoom, StarlingError, UsageError
from starling.infra.files import read_json, write_atomically, write_json
from starling.infra.processes import die_with_parent
from starling.trainer.data.synth import fundus
from starling.trainer.data.synth.lesions import KINDS

LABELS, TRUTH, LESIONS, RECIPE = "trainLabels.csv", "truth.csv", "lesions.csv", "synth.json"
SUFFIX = ".jpeg"
GENERATOR = "fundus-1"
"""Changes with every change that makes other pictures."""
REPORTS = 10
CHUNK = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One image that is in the folder."""

    name: str
    level: int
    artefacts: tuple[str, ...]
    spots: list[fundus.Spot]
    kept: bool
    """It was there already."""


def write_fundus(
    folder: Path, *, images: int, seed: int, size: int, workers: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Fill a folder, and say what is in it: folder, images, kept (were there before), levels (grade -> count),
    artefacts (share of the images that have any).

    UsageError if the folder holds anything else; NoRoom if the disk is full (the same command goes on later).
    """
    recipe = {"generator": GENERATOR, "seed": seed, "size": size}
    try:
        _claim(folder, recipe, images)
        made = list(_reported(_made(folder, images, seed, size, workers), images, progress))
        _write_tables(folder, made)
    except BrokenProcessPool as error:
        raise StarlingError(f"a worker was killed, perhaps for memory; the same command goes on: {folder}") from error
    except OSError as error:
        raise _explained(error, folder) from error
    levels = Counter(each.level for each in made)
    return {
        "folder": str(folder),
        "images": images,
        "kept": sum(each.kept for each in made),
        "levels": {str(level): levels[level] for level in range(5)},
        "artefacts": sum(bool(each.artefacts) for each in made) / images,
    }


def _claim(folder: Path, recipe: dict[str, Any], images: int) -> None:
    """Make sure that the folder is ours to write into, and say in it what it will hold."""
    folder.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in folder.iterdir()}
    found = read_json(folder / RECIPE) if RECIPE in present else None
    if present and found is None:
        raise UsageError(f"{folder} holds other things ({', '.join(sorted(present)[:3])}); give a new or empty folder")
    if found not in (None, recipe):
        raise UsageError(f"{folder} was rendered with {found}, not {recipe}; give the same values, or another folder")
    ours = {fundus.name_of(index) + SUFFIX for index in range(images)} | {LABELS, TRUTH, LESIONS, RECIPE}
    for torn in [name for name in present - ours if name.startswith(".") and name[1:].rpartition(".")[0] in ours]:
        (folder / torn).unlink()  # what a killed command left half-written
        present.remove(torn)
    if others := sorted(present - ours):
        raise UsageError(
            f"{folder} holds {len(others)} files that are not among these {images} images ({', '.join(others[:3])}); "
            "give a larger --images, or another folder"
        )
    (folder / LABELS).unlink(missing_ok=True)
    write_json(folder / RECIPE, recipe)


def _made(folder: Path, images: int, seed: int, size: int, workers: int) -> Iterator[Made]:
    """All images in their order."""
    jobs = [(folder, seed, index, size) for index in range(images)]
    if workers == 1:
        yield from map(_make, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            yield from pool.map(_make, jobs, chunksize=CHUNK)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make(job: tuple[Path, int, int, int]) -> Made:
    folder, seed, index, size = job
    planned = fundus.plan(seed, index, size)
    path = folder / (planned.name + SUFFIX)
    kept = _is_whole(path, size)
    if not kept:
        write_atomically(path, fundus.paint(seed, index, planned))
    return Made(name=planned.name, level=planned.level, artefacts=planned.artefacts, spots=planned.spots, kept=kept)


def _is_whole(path: Path, size: int) -> bool:
    """Whether an image is there, of this size and with its end."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.size == (size, size) and data.endswith(b"\xff\xd9")
    except OSError:
        return False  # no image at all


def _reported(made: Iterable[Made], images: int, progress: Callable[[str], None]) -> Iterator[Made]:
    for count, each in enumerate(made, start=1):
        if count * REPORTS // images > (count - 1) * REPORTS // images:
            progress(f"{count} of {images} images")
        yield each


def _write_tables(folder: Path, made: list[Made]) -> None:
    """The labels last: where they are, everything is."""
    spots = [(each.name, spot) for each in made for spot in each.spots]
    rows = [[name, spot.kind, f"{spot.x:.1f}", f"{spot.y:.1f}", f"{max(spot.radius, 0.1):.1f}"] for name, spot in spots]
    _write_table(folder / LESIONS, ["image", "kind", "x", "y", "radius"], rows)
    truths = [
        [each.name, each.level, "+".join(each.artefacts), *(_count(each, kind) for kind in KINDS)] for each in made
    ]
    _write_table(folder / TRUTH, ["image", "level", "artefact", *KINDS], truths)
    _write_table(folder / LABELS, ["image", "level"], [[each.name, each.level] for each in made])


def _count(made: Made, kind: str) -> int:
    return sum(spot.kind == kind for spot in made.spots)


def _write_table(path: Path, head: list[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _explained(error: OSError, folder: Path) -> StarlingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"{folder}: the disk is full; make room, and the same command goes on")
    return UsageError(f"cannot write the images: {error}")
