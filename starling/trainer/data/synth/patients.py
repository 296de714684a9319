"""Who is photographed: what both eyes of a patient share, and the grade of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EYES = ("left", "right")

EYEPACS_SHARES = (73.0, 7.0, 15.0, 2.5, 2.0)
"""Per cent of the images of each grade, 0 to 4, in EyePACS' training data; rounded there, normalised here."""

SAME_GRADE = 0.7
"""How often the second eye takes over the first one's grade; otherwise it is drawn anew, and may still agree."""

GOLDEN = (math.sqrt(5) - 1) / 2
SILVER = math.sqrt(2) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """Both eyes' anatomy and camera. Lengths are in radii of a 45 degree field of view."""

    grades: tuple[int, int]
    """Of the left and the right eye."""
    pigment: float
    """0: blond, the choroid shines through; 1: dark brown."""
    redness: float
    """How much the colour leans to red (1) or to orange (0)."""
    age: float
    """0: young, with reflexes on the retina; 1: old, with drusen."""
    disc_radius: float
    cup: float
    """Diameter of the cup, as a share of the disc's."""
    arcade: float
    """How far the large vessels keep from the fovea."""
    tortuosity: float
    vessel_width: float
    """Diameter of a large vein where it leaves the disc."""
    camera: int
    """Which of the cameras took the photographs."""


def stream(seed: int, *which: int) -> np.random.Generator:
    """Random numbers that depend on these numbers only."""
    return np.random.default_rng([seed, *which])


def patient(seed: int, number: int) -> Patient:
    """Patient `number` (from 0) of a clinic that `seed` decides."""
    rng = stream(seed, number, 0)
    return Patient(
        grades=_grades(seed, number, copied=rng.random() < SAME_GRADE),
        pigment=float(rng.beta(1.6, 1.6)),
        redness=float(rng.uniform()),
        age=float(rng.beta(2.0, 1.5)),
        disc_radius=float(np.clip(rng.normal(0.108, 0.011), 0.085, 0.14)),
        cup=float(np.clip(rng.normal(0.42, 0.12), 0.15, 0.75)),
        arcade=float(rng.uniform(0.42, 0.58)),
        tortuosity=float(rng.gamma(4.0, 0.25)),
        vessel_width=float(np.clip(rng.normal(0.024, 0.002), 0.019, 0.030)),
        camera=int(rng.integers(5)),
    )


def _grades(seed: int, number: int, *, copied: bool) -> tuple[int, int]:
    """Multiples of an irrational number are spread evenly: any number of patients has nearly the wanted shares."""
    starts = stream(seed, 0, 1).random(2)
    left = grade_at((starts[0] + number * GOLDEN) % 1)
    return left, left if copied else grade_at((starts[1] + number * SILVER) % 1)


def grade_at(quantile: float) -> int:
    """The grade below which this share of all images lies."""
    bounds = np.cumsum(EYEPACS_SHARES) / sum(EYEPACS_SHARES)
    return int(np.searchsorted(bounds[:-1], quantile, side="right"))
