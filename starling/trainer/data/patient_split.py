"""Which images validate: the same part of each class, by a hash, and never one eye here and the other there."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from starling.trainer.data.sources.found import FoundImage

VALIDATION_PART = 0.2

_EYE = re.compile(r"(.+)[_-](left|right)", re.IGNORECASE)
"""EyePACS: 10_left.jpeg and 10_right.jpeg are the eyes of patient 10."""


def split_images(images: list[FoundImage], fraction: float = VALIDATION_PART) -> tuple[list[FoundImage], bool]:
    """Every image with a split, "train" or "val", and whether that was done patient by patient.

    A patient counts for the rarest class among their images, so rare classes are shared out as evenly as patients
    allow. Of each class the `fraction` of the patients (images, if no patients are known) with the smallest hash
    validates; at least one of two, never all.
    """
    patients = patients_of(images)
    numbers = Counter(image.class_name for image in images)
    rarest: dict[str, str] = {}
    for image in images:
        patient = patients[image.key]
        here = rarest.get(patient, image.class_name)
        rarest[patient] = min(here, image.class_name, key=lambda name: (numbers[name], name))
    by_class: dict[str, list[str]] = defaultdict(list)
    for patient, class_name in rarest.items():
        by_class[class_name].append(patient)
    held_out = {name for members in by_class.values() for name in validation_keys(members, fraction)}
    split = [replace(image, split="val" if patients[image.key] in held_out else "train") for image in images]
    return split, len(rarest) < len(images)


def is_patient_wise(images: list[FoundImage]) -> bool:
    """Whether splits that the source made keep all of a patient's images together; False if no patient has two."""
    patients = patients_of(images)
    if len(set(patients.values())) == len(images):
        return False
    return len({(patients[image.key], image.split) for image in images}) == len(set(patients.values()))


def patients_of(images: list[FoundImage]) -> dict[str, str]:
    """Image key -> what tells its patient: what the source says, else the file's name without _left or _right if at
    least half of all names end so, else the key itself."""
    keys = [image.key for image in images]
    by_name = _by_name(keys) or keys
    return {image.key: image.patient or name for image, name in zip(images, by_name, strict=True)}


def patient_numbers(images: list[FoundImage]) -> dict[str, int]:
    """Image key -> a number that stands for its patient, whose name nobody needs to know."""
    patients = patients_of(images)
    number_of = {name: number for number, name in enumerate(sorted(set(patients.values())))}
    return {key: number_of[name] for key, name in patients.items()}


def validation_keys(keys: Iterable[str], fraction: float = VALIDATION_PART) -> set[str]:
    """The part of one class's keys that validates: those with the smallest hash; at least one of two, never all."""
    ranked = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    wanted = max(round(len(ranked) * fraction), 1) if fraction > 0 else 0
    return set(ranked[: min(wanted, len(ranked) - 1)]) if ranked else set()


def _by_name(keys: list[str]) -> list[str] | None:
    """The patient of every image, from names such as `17_left.jpeg`, in whatever folder; an image that is named
    otherwise stands for itself. None if less than half of all names are like that: then it is chance."""
    eyes = [_EYE.fullmatch(posixpath.splitext(posixpath.basename(key))[0]) for key in keys]
    if 2 * sum(eye is not None for eye in eyes) < len(keys):
        return None
    return [eye[1] if eye else key for eye, key in zip(eyes, keys, strict=True)]
