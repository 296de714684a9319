"""The healthy eye: optic disc, fovea, and the tree of vessels that leaves the disc and arches round the fovea.

Coordinates are those of a left eye on its photograph: the fovea at (0, 0), the disc to the left of it, y down, in radii
of a 45 degree field. Right eyes are mirrored when they are photographed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from starling.trainer.data.synth.layers import Array
from starling.trainer.data.synth.patients import Patient

AVASCULAR = 0.10
"""No vessel comes nearer to the fovea."""
TRUNK_POINTS = 56
BRANCH_POINTS = 16
THINNEST = 0.0032


@dataclass(frozen=True, kw_only=True, slots=True)
class Vessels:
    """n vessels of k points each."""

    points: Array
    """[n, k, 2]"""
    widths: Array
    """[n, k]: diameters; 0 where a vessel has ended."""
    vein: Array
    """[n]: 1 for veins, 0 for arteries."""

    @property
    def headings(self) -> Array:
        """[n, k]: angles in radians."""
        along = np.gradient(self.points, axis=1)
        headings: Array = np.arctan2(along[..., 1], along[..., 0])
        return headings


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """One eye."""

    disc: tuple[float, float]
    disc_radii: tuple[float, float]
    cup: float
    trunks: Vessels
    branches: list[Vessels]


def grow(rng: np.random.Generator, patient: Patient) -> Anatomy:
    """An eye of this patient."""
    disc = (float(-0.69 + rng.normal(0, 0.025)), float(-0.06 + rng.normal(0, 0.025)))
    radius = patient.disc_radius * float(rng.uniform(0.97, 1.03))
    trunks = _trunks(rng, patient, disc)
    small = _radials(rng, patient, disc)
    first = _branches(rng, trunks, count=9, patient=patient)
    second = _branches(rng, first, count=3, patient=patient)
    third = _branches(rng, second, count=1, patient=patient)
    twigs = _branches(rng, small, count=3, patient=patient)
    return Anatomy(
        disc=disc,
        disc_radii=(radius * float(rng.uniform(0.86, 0.98)), radius * float(rng.uniform(1.0, 1.1))),
        cup=patient.cup,
        trunks=trunks,
        branches=[third, second, twigs, small, first],
    )


def wander(
    rng: np.random.Generator, starts: Array, headings: Array, lengths: Array, *, bend: Array, tortuosity: float
) -> Array:
    """[n, BRANCH_POINTS, 2]: paths that start at [n, 2] with these headings [n], turn by `bend` [n] radians along their
    lengths [n], and wriggle."""
    count = len(starts)
    steps = np.linspace(0, 1, BRANCH_POINTS, dtype=np.float32)
    wriggle = np.zeros((count, BRANCH_POINTS), dtype=np.float32)
    for waves, share in ((1.3, 0.35), (2.9, 0.25)):
        phase = rng.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
        wriggle += share * np.sin(2 * np.pi * waves * steps * rng.uniform(0.7, 1.3, (count, 1)) + phase)
    turned = headings[:, None] + bend[:, None] * steps + tortuosity * (wriggle - wriggle[:, :1])
    stride = (lengths / BRANCH_POINTS)[:, None]
    moves = np.stack([np.cos(turned) * stride, np.sin(turned) * stride], axis=-1)
    path: Array = starts[:, None, :] + np.cumsum(moves, axis=1) - moves[:, :1]
    return path.astype(np.float32)


def _trunks(rng: np.random.Generator, patient: Patient, disc: tuple[float, float]) -> Vessels:
    """An artery and a vein into each of the four quadrants."""
    controls, widths, vein = [], [], []
    for down in (-1, 1):
        for is_vein in (0, 1):
            controls += [_temporal(rng, patient, disc, down, is_vein), _nasal(rng, disc, down)]
            width = patient.vessel_width * (1.0 if is_vein else 0.78)
            widths += [width * rng.uniform(0.9, 1.1), width * rng.uniform(0.6, 0.8)]
            vein += [is_vein, is_vein]
    points = _bezier(np.array(controls, dtype=np.float32))
    taper = np.linspace(1.0, 0.5, TRUNK_POINTS, dtype=np.float32)
    thickness = np.array(widths, dtype=np.float32)[:, None] * taper
    return Vessels(
        points=points + _sway(rng, points, 0.011 * patient.tortuosity),
        widths=thickness,
        vein=np.array(vein, dtype=np.float32),
    )


def _temporal(
    rng: np.random.Generator, patient: Patient, disc: tuple[float, float], down: int, vein: int
) -> list[list[float]]:
    height = patient.arcade * rng.uniform(0.9, 1.05) * (1.0 if vein else rng.uniform(0.95, 1.3))
    start = [disc[0] + rng.uniform(-0.02, 0.02), disc[1] + down * 0.02]
    return [
        start,
        [disc[0] + rng.uniform(-0.05, 0.12), down * 1.1 * height],
        [rng.uniform(-0.25, 0.2), down * 1.28 * height],
        [1.35, down * height * rng.uniform(0.5, 1.5)],
    ]


def _nasal(rng: np.random.Generator, disc: tuple[float, float], down: int) -> list[list[float]]:
    x, y = disc[0] + rng.uniform(-0.03, 0.0), disc[1]
    return [
        [x, y + down * 0.02],
        [x + rng.uniform(-0.08, 0.02), y + down * rng.uniform(0.12, 0.28)],
        [x - rng.uniform(0.15, 0.35), y + down * rng.uniform(0.2, 0.55)],
        [x - rng.uniform(0.5, 0.75), y + down * rng.uniform(0.25, 1.0)],
    ]


def _bezier(controls: Array) -> Array:
    """[n, 4, 2] -> [n, TRUNK_POINTS, 2]"""
    t = np.linspace(0, 1, TRUNK_POINTS, dtype=np.float32)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    points: Array = np.einsum("kc,ncd->nkd", weights, controls).astype(np.float32)
    return points


def _sway(rng: np.random.Generator, points: Array, size: float) -> Array:
    """Offsets [n, k, 2] that grow from nothing at the disc."""
    count, steps = points.shape[:2]
    t = np.linspace(0, 1, steps, dtype=np.float32)
    total = np.zeros((count, steps, 2), dtype=np.float32)
    for waves in (2.0, 4.5, 8.0):
        phase = rng.uniform(0, 2 * np.pi, (count, 1, 2))
        turns = waves * rng.uniform(0.8, 1.2, (count, 1, 2)) * t[:, None]
        total += np.sin(2 * np.pi * turns + phase) * (1.5 / waves**0.7)
    sway: Array = total * np.float32(size) * np.minimum(1, 6 * t)[:, None]
    return sway


def _radials(rng: np.random.Generator, patient: Patient, disc: tuple[float, float]) -> Vessels:
    """Small vessels straight from the disc: towards the fovea, and to the nasal side."""
    headings = np.concatenate([rng.uniform(-0.5, 0.5, 4), np.pi + rng.uniform(-0.9, 0.9, 5)]).astype(np.float32)
    count = len(headings)
    starts = np.array([disc] * count, dtype=np.float32) + rng.normal(0, 0.015, (count, 2)).astype(np.float32)
    lengths = rng.uniform(0.35, 0.62, count).astype(np.float32)
    bend = rng.normal(0, 0.35, count).astype(np.float32)
    bend[:4] = -1.1 * headings[:4]
    points = wander(rng, starts, headings, lengths, bend=bend, tortuosity=0.4 * patient.tortuosity)
    widths = patient.vessel_width * rng.uniform(0.26, 0.42, (count, 1)) * np.linspace(1, 0.5, BRANCH_POINTS)
    return Vessels(
        points=points,
        widths=_outside_fovea(points, widths.astype(np.float32)),
        vein=rng.integers(0, 2, count).astype(np.float32),
    )


def _branches(rng: np.random.Generator, parents: Vessels, *, count: int, patient: Patient) -> Vessels:
    """`count` branches of each parent, to alternating sides. The widths of a parent and its branches follow one law of
    the thumb: a branch takes about two thirds."""
    number, steps = parents.widths.shape
    places = (np.arange(count) + rng.uniform(0.1, 0.9, (number, count))) / count
    index = (steps * (0.12 + 0.83 * places)).astype(int)
    rows = np.repeat(np.arange(number), count)
    columns = index.ravel()
    side = np.where((np.arange(number * count) + rng.integers(0, 2, number * count)) % 2, 1, -1).astype(np.float32)
    width = parents.widths[rows, columns] * rng.uniform(0.4, 0.8, len(rows)).astype(np.float32)
    headings = parents.headings[rows, columns] + side * rng.uniform(0.45, 1.15, len(rows)).astype(np.float32)
    lengths = np.clip(width * rng.uniform(28, 62, len(rows)), 0.04, 0.75).astype(np.float32)
    bend = (-side * rng.uniform(-0.2, 1.0, len(rows))).astype(np.float32)
    starts = parents.points[rows, columns]
    points = wander(rng, starts, headings, lengths, bend=bend, tortuosity=0.6 * patient.tortuosity)
    taper = np.linspace(1, 0.45, BRANCH_POINTS, dtype=np.float32)
    widths = np.where(width > THINNEST * 0.7, np.maximum(width, THINNEST), 0)[:, None] * taper
    return Vessels(points=points, widths=_outside_fovea(points, widths), vein=parents.vein[rows])


def _outside_fovea(points: Array, widths: Array) -> Array:
    """Widths with every vessel ended where it would enter the avascular zone."""
    inside = np.hypot(points[..., 0], points[..., 1]) < AVASCULAR
    return np.where(np.maximum.accumulate(inside, axis=1), np.float32(0), widths)
