"""Which images are of one patient: two eyes are not independent, so they are drawn together."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_EYE = re.compile(r"(.+)[_-](left|right)", re.IGNORECASE)


def patients_of(keys: list[str]) -> list[str] | None:
    """The patient of every image, from names such as `17_left.jpeg` (EyePACS); an image that is named otherwise stands
    for itself. None if less than half of all names are like that: then it is chance."""
    eyes = [_EYE.fullmatch(PurePosixPath(key).stem) for key in keys]
    if 2 * sum(eye is not None for eye in eyes) < len(keys):
        return None
    return [eye[1] if eye else key for eye, key in zip(eyes, keys, strict=True)]
