"""Draws a few images of each class on one sheet, to look at what will be learnt from."""

from __future__ import annotations

import io

from isal.isal_zlib import crc32
from PIL import Image, ImageDraw, ImageFont

from starling.infra.errors import ObjectCorrupt, UsageError
from starling.infra.store import Store
from starling.trainer.data.decode import FORMATS
from starling.trainer.data.index import DatasetIndex, DatasetPlace, Sample, load_index, locate

THUMBNAIL = 128
"""Pixels a side."""
GAP = 4
LETTERS = 14
"""Height of the letters, pixels."""
INK = "white"
PAPER = (32, 32, 36)


def contact_sheet(store: Store, dataset: str, split: str, per_class: int) -> Image.Image:
    """A row for each class, its name and number of images in front: the first `per_class` images of the split, which
    are as good as drawn at random. UsageError if there is no such dataset or split; ObjectCorrupt for damage."""
    index, place = load_index(store, dataset), locate(store, dataset)
    if split not in index.splits:
        raise UsageError(f"dataset {index.name} has no split {split!r}; it has {', '.join(sorted(index.splits))}")
    rows = _first_of_each(index, split, per_class)
    counts = index.class_counts(split)
    font = ImageFont.load_default(LETTERS)
    names = [f"{name}\n{count:,} images" for name, count in zip(index.classes, counts, strict=True)]
    margin = GAP * 3 + round(max(font.getlength(line) for name in names for line in name.split("\n")))
    step = THUMBNAIL + GAP
    sheet = Image.new("RGB", (margin + per_class * step, len(rows) * step + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (name, samples) in enumerate(zip(names, rows, strict=True)):
        top = GAP + row * step
        draw.text((GAP, top + THUMBNAIL // 2 - LETTERS), name, INK, font)
        for column, sample in enumerate(samples):
            thumbnail = _thumbnail(place, index, split, sample)
            left = margin + column * step + (THUMBNAIL - thumbnail.width) // 2
            sheet.paste(thumbnail, (left, top + (THUMBNAIL - thumbnail.height) // 2))
    return sheet


def _first_of_each(index: DatasetIndex, split: str, per_class: int) -> list[list[Sample]]:
    rows: list[list[Sample]] = [[] for _ in index.classes]
    for sample in index.splits[split].samples:
        if len(rows[sample.label]) < per_class:
            rows[sample.label].append(sample)
    return rows


def _thumbnail(place: DatasetPlace, index: DatasetIndex, split: str, sample: Sample) -> Image.Image:
    shard = index.splits[split].shards[sample.shard]
    data = place.read_shard(shard, sample.offset, sample.length)
    if crc32(data) != sample.crc32:
        raise ObjectCorrupt(
            f"{sample.key} in {place.shard_key(shard)} of {place.store.uri} does not match the dataset's index; "
            f"see all damage with: starling data verify {place.uri}"
        )
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        small = image.convert("RGB")
    scale = THUMBNAIL / max(small.size)
    size = max(round(small.width * scale), 1), max(round(small.height * scale), 1)
    # Tiny pictures, like the digits, are better seen with their pixels than blurred.
    return small.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
