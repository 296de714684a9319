"""What a preparation will do, decided from the listing alone: classes, splits, order. No image has been read yet."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from starling.infra.errors import UsageError
from starling.trainer.data.index import PreparedWith
from starling.trainer.data.patient_split import VALIDATION_PART, is_patient_wise, patient_numbers, split_images
from starling.trainer.data.rendition import Rendition
from starling.trainer.data.sources.found import FoundImage, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    source: Source
    classes: list[str]
    splits: dict[str, list[FoundImage]]
    """Every split's images in the order in which they are packed."""
    patients: dict[str, int]
    """Image key -> number of its patient."""
    prepared: PreparedWith
    inputs_sha256: str

    @property
    def images(self) -> int:
        return sum(map(len, self.splits.values()))


def make_plan(source: Source, rendition: Rendition, *, fraction: float | None, shard_bytes: int) -> Plan:
    """`fraction` of each class is to validate; None: a fifth, unless the source says what validates. UsageError if
    there are not two classes to learn, or if `fraction` contradicts the source."""
    images, patient_wise = split_source(source, fraction)
    splits: dict[str, list[FoundImage]] = defaultdict(list)
    for image in images:
        splits[image.split or "train"].append(image)
    classes = sorted_classes({image.class_name for image in images})
    _check(source, splits, classes)
    part = None if source.split_by != "hash" else VALIDATION_PART if fraction is None else fraction
    prepared = _prepared_with(source, rendition, part, shard_bytes, patient_wise=patient_wise)
    ordered = {name: sorted(splits[name], key=_place) for name in sorted(splits)}
    patients = patient_numbers(images)
    return Plan(
        source=source,
        classes=classes,
        splits=ordered,
        patients=patients,
        prepared=prepared,
        inputs_sha256=_inputs_hash(ordered, patients, classes, prepared),
    )


def split_source(source: Source, fraction: float | None) -> tuple[list[FoundImage], bool]:
    """Every image with its split, and whether all of a patient's are in one. `fraction`: as for `make_plan`. UsageError
    if it cannot be, or contradicts the source."""
    if fraction is not None and not 0 <= fraction < 1:
        raise UsageError(f"--split {fraction:g}: give the part that validates, from 0 to below 1, like 0.2")
    if source.split_by == "hash":
        return split_images(source.images, VALIDATION_PART if fraction is None else fraction)
    if fraction is not None:
        how = "folders" if source.split_by == "folders" else "column of splits"
        raise UsageError(f"--split {fraction:g}: the source already says what validates, by its {how}")
    return source.images, is_patient_wise(source.images)


def sorted_classes(names: set[str]) -> list[str]:
    """Numerically if all are numbers (2 before 10), else by name."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (Decimal(name), name))  # int() refuses thousands of digits
    return sorted(names)


def _place(image: FoundImage) -> bytes:
    """Where in its split an image lies: as good as random, and it stays when others come or go."""
    return hashlib.sha256(image.key.encode()).digest()


def _check(source: Source, splits: dict[str, list[FoundImage]], classes: list[str]) -> None:
    learnt = {image.class_name for image in splits["train"]}
    if len(learnt) < 2:
        only = ", ".join(learnt) or "none at all"
        raise UsageError(
            f"{source.description} ({source.layout}) has only one class to learn ({only}); two or more are needed"
        )
    if unknown := [name for name in classes if name not in learnt]:
        raise UsageError(f"{source.description} has classes to evaluate that train lacks: {', '.join(unknown)}")


def _prepared_with(
    source: Source, rendition: Rendition, fraction: float | None, shard_bytes: int, *, patient_wise: bool
) -> PreparedWith:
    return PreparedWith(
        layout=source.layout,
        size=rendition.size,
        crop_retina=rendition.crop_retina,
        quality=None if rendition.keeps_bytes else rendition.quality,
        lossless=rendition.lossless and not rendition.keeps_bytes,
        shard_bytes=shard_bytes,
        split_by=source.split_by,
        split_fraction=fraction,
        patient_wise=patient_wise,
    )


def _inputs_hash(
    splits: dict[str, list[FoundImage]], patients: dict[str, int], classes: list[str], prepared: PreparedWith
) -> str:
    rows = [
        [name, image.key, image.size, image.stamp, image.class_name, patients[image.key]]
        for name in splits
        for image in splits[name]
    ]
    content = {"images": rows, "classes": classes, "prepared": prepared.model_dump()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
