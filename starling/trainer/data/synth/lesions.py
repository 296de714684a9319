"""What diabetes does to an eye, by grade of the International Clinical Diabetic Retinopathy scale (Wilkinson et al.,
Ophthalmology 2003;110:1677): 1 microaneurysms only; 2 more than these; 3 more than 20 haemorrhages in each quadrant,
venous beading in two, or intraretinal microvascular abnormalities (IRMA); 4 neovessels or preretinal haemorrhage.

Coordinates are those of `anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from starling.trainer.data.synth.anatomy import Anatomy, Vessels, wander
from starling.trainer.data.synth.layers import Array

MICROANEURYSM = "microaneurysm"
HAEMORRHAGE = "haemorrhage"
EXUDATE = "exudate"
COTTON_WOOL = "cotton-wool"
VENOUS_BEADING = "venous-beading"
IRMA = "irma"
NEOVESSEL = "neovessel"
PRERETINAL = "preretinal-haemorrhage"
KINDS = (MICROANEURYSM, HAEMORRHAGE, EXUDATE, COTTON_WOOL, VENOUS_BEADING, IRMA, NEOVESSEL, PRERETINAL)

REACH = 0.95
"""Lesions are no farther than this from the fovea."""
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesion:
    """One lesion; a circle round (x, y) holds all of it."""

    kind: str
    x: float
    y: float
    radius: float
    outline: Array | None = None
    """[n, 2], of those that are drawn as one patch."""
    vessels: Vessels | None = None
    """Of those that are vessels."""


def place(rng: np.random.Generator, grade: int, anatomy: Anatomy) -> tuple[list[Lesion], Anatomy]:
    """The lesions of an eye of this grade, and the eye with its veins as they are then."""
    if grade == 0:
        return [], anatomy
    if grade == 1:
        return _microaneurysms(rng, anatomy, count=int(rng.integers(2, 8))), anatomy
    if grade == 2:
        return _moderate(rng, anatomy), anatomy
    if grade == 3:
        beaded, anatomy = _beading(rng, anatomy, quadrants=int(rng.integers(2, 5)))
        return [*_severe(rng, anatomy, each_quadrant=(16, 34)), *beaded], anatomy
    return _proliferative(rng, anatomy)


def _moderate(rng: np.random.Generator, anatomy: Anatomy) -> list[Lesion]:
    found = _microaneurysms(rng, anatomy, count=int(rng.integers(5, 22)))
    for _ in range(int(rng.integers(3, 18))):
        found.append(_haemorrhage(rng, anatomy, _somewhere(rng, anatomy)))
    if rng.random() < 0.65:
        found += _exudates(rng, anatomy, clusters=int(rng.integers(1, 5)))
    if rng.random() < 0.25:
        found += [_cotton_wool(rng, anatomy) for _ in range(int(rng.integers(1, 4)))]
    return found


def _severe(rng: np.random.Generator, anatomy: Anatomy, *, each_quadrant: tuple[int, int]) -> list[Lesion]:
    found = _microaneurysms(rng, anatomy, count=int(rng.integers(12, 40)))
    for quadrant in range(4):
        for _ in range(int(rng.integers(*each_quadrant))):
            found.append(_haemorrhage(rng, anatomy, _somewhere(rng, anatomy, quadrant)))
    if rng.random() < 0.6:
        found += _exudates(rng, anatomy, clusters=int(rng.integers(1, 6)))
    if rng.random() < 0.6:
        found += [_cotton_wool(rng, anatomy) for _ in range(int(rng.integers(1, 6)))]
    if rng.random() < 0.6:
        found += [_tangle(rng, anatomy, IRMA) for _ in range(int(rng.integers(1, 5)))]
    return found


def _proliferative(rng: np.random.Generator, anatomy: Anatomy) -> tuple[list[Lesion], Anatomy]:
    found = _severe(rng, anatomy, each_quadrant=(2, 16))
    if rng.random() < 0.4:
        beaded, anatomy = _beading(rng, anatomy, quadrants=int(rng.integers(1, 3)))
        found += beaded
    bleeds = rng.random() < 0.55
    if not bleeds or rng.random() < 0.75:
        if at_disc := rng.random() < 0.5:
            found.append(_tangle(rng, anatomy, NEOVESSEL, at=anatomy.disc))
        elsewhere = int(rng.integers(0 if at_disc else 1, 4))
        found += [_tangle(rng, anatomy, NEOVESSEL) for _ in range(elsewhere)]
    if bleeds:
        found += [_preretinal(rng) for _ in range(int(rng.integers(1, 3)))]
    return found, anatomy


def _somewhere(
    rng: np.random.Generator,
    anatomy: Anatomy,
    quadrant: int | None = None,
    *,
    spread: float = REACH,
    fovea: float = 0.05,
) -> Point:
    """A place on the retina, off the disc; quadrants are numbered round the fovea."""
    while True:
        distance = fovea + (spread - fovea) * float(rng.uniform()) ** 0.7
        turn = float(rng.uniform()) if quadrant is None else (quadrant + float(rng.uniform())) / 4
        x, y = distance * np.cos(2 * np.pi * turn), distance * np.sin(2 * np.pi * turn)
        if np.hypot(x - anatomy.disc[0], y - anatomy.disc[1]) > 1.3 * max(anatomy.disc_radii):
            return float(x), float(y)


def _microaneurysms(rng: np.random.Generator, anatomy: Anatomy, *, count: int) -> list[Lesion]:
    return [
        _blot(rng, MICROANEURYSM, _somewhere(rng, anatomy, spread=0.75), float(rng.uniform(0.0065, 0.0115)), rough=0.08)
        for _ in range(count)
    ]


def _haemorrhage(rng: np.random.Generator, anatomy: Anatomy, at: Point) -> Lesion:
    """A dot or blot in the deep retina, or a flame along the nerve fibres, which fan out of the disc."""
    size = float(np.clip(rng.lognormal(-4.05, 0.45), 0.009, 0.06))
    if rng.random() < 0.3:
        along = np.arctan2(at[1] - anatomy.disc[1], at[0] - anatomy.disc[0]) + rng.normal(0, 0.25)
        return _blot(rng, HAEMORRHAGE, at, 1.6 * size, rough=0.2, squeeze=float(rng.uniform(0.22, 0.45)), along=along)
    return _blot(rng, HAEMORRHAGE, at, size, rough=0.22, squeeze=float(rng.uniform(0.7, 1)), along=rng.uniform(0, 6.3))


def _exudates(rng: np.random.Generator, anatomy: Anatomy, *, clusters: int) -> list[Lesion]:
    """Clusters of waxy specks, or rings of them; most lie in the macula."""
    found = []
    for _ in range(clusters):
        x, y = _somewhere(rng, anatomy, spread=0.62, fovea=0.08)
        ring = float(rng.uniform(0.05, 0.12)) if rng.random() < 0.4 else 0.0
        for _ in range(int(rng.integers(5, 28))):
            turn, distance = rng.uniform(0, 2 * np.pi), ring + rng.normal(0, 0.012 if ring else 0.04)
            at = (float(x + distance * np.cos(turn)), float(y + distance * np.sin(turn)))
            size = float(np.clip(rng.lognormal(-4.75, 0.4), 0.005, 0.025))
            found.append(_blot(rng, EXUDATE, at, size, rough=0.25, squeeze=float(rng.uniform(0.6, 1))))
    return found


def _cotton_wool(rng: np.random.Generator, anatomy: Anatomy) -> Lesion:
    """A fluffy white infarct of the nerve fibre layer, near the arcades."""
    x, y = _somewhere(rng, anatomy, spread=0.8, fovea=0.3)
    return Lesion(kind=COTTON_WOOL, x=x, y=y, radius=float(rng.uniform(0.025, 0.055)))


def _preretinal(rng: np.random.Generator) -> Lesion:
    """Blood before the retina, which sinks: a boat with a level top."""
    width, depth = float(rng.uniform(0.12, 0.32)), float(rng.uniform(0.5, 0.9))
    x, y = float(rng.uniform(-0.4, 0.45)), float(rng.uniform(-0.1, 0.55))
    turns = np.linspace(0, 2 * np.pi, 80)
    rim = width * (1 + 0.05 * np.sin(3 * turns + rng.uniform(0, 6)) + 0.03 * np.sin(5 * turns + rng.uniform(0, 6)))
    down = np.where(np.sin(turns) > 0, depth, 0.12) * np.sin(turns)
    hull = np.stack([x + rim * np.sign(np.cos(turns)) * np.abs(np.cos(turns)) ** 0.8, y + rim * down], axis=1)
    return Lesion(kind=PRERETINAL, x=x, y=y + 0.4 * depth * width, radius=width, outline=hull.astype(np.float32))


def _blot(
    rng: np.random.Generator, kind: str, at: Point, radius: float, *, rough: float, squeeze: float = 1, along: float = 0
) -> Lesion:
    """A patch with an uneven edge, `squeeze` times as wide across as `along`."""
    turns = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    edge = np.ones(28)
    for waves in (2, 3, 5):
        edge += 1.6 * rough / waves * rng.uniform(0.3, 1) * np.sin(waves * turns + rng.uniform(0, 2 * np.pi))
    edge *= radius / edge.max()
    x, y = edge * np.cos(turns), squeeze * edge * np.sin(turns)
    cos, sin = np.cos(along), np.sin(along)
    outline = np.stack([at[0] + x * cos - y * sin, at[1] + x * sin + y * cos], axis=1)
    return Lesion(kind=kind, x=at[0], y=at[1], radius=radius, outline=outline.astype(np.float32))


def _tangle(rng: np.random.Generator, anatomy: Anatomy, kind: str, at: Point | None = None) -> Lesion:
    """Fine winding vessels: few within the retina (IRMA), a fan of many where new ones grow."""
    x, y = at or _beside_a_vein(rng, anatomy)
    fan = kind == NEOVESSEL
    count = int(rng.integers(14, 34)) if fan else int(rng.integers(3, 7))
    size = float(rng.uniform(0.09, 0.2)) if fan else float(rng.uniform(0.03, 0.06))
    opening = rng.uniform(1.5, np.pi) if fan else np.pi
    headings = rng.uniform(0, 2 * np.pi) + rng.uniform(-opening, opening, count)
    starts = rng.normal((x, y), 0.2 * size, (count, 2)).astype(np.float32)
    lengths = size * rng.uniform(0.8, 1.8, count).astype(np.float32)
    bend = rng.normal(0, 1.8, count).astype(np.float32)
    points = wander(rng, starts, headings.astype(np.float32), lengths, bend=bend, tortuosity=2.6)
    widths = rng.uniform(0.004, 0.0075, (count, 1)).astype(np.float32) * np.ones(points.shape[1], dtype=np.float32)
    reach = float(np.hypot(points[..., 0] - x, points[..., 1] - y).max())
    grown = Vessels(points=points, widths=widths, vein=np.zeros(count, dtype=np.float32))
    return Lesion(kind=kind, x=x, y=y, radius=reach, vessels=grown)


def _beside_a_vein(rng: np.random.Generator, anatomy: Anatomy) -> Point:
    """A point of a large vein, in the field."""
    points = anatomy.trunks.points[anatomy.trunks.vein > 0].reshape(-1, 2)
    from_disc = np.hypot(points[:, 0] - anatomy.disc[0], points[:, 1] - anatomy.disc[1])
    inside = points[(np.hypot(points[:, 0], points[:, 1]) < 0.85) & (from_disc > 0.25)]
    x, y = inside[rng.integers(len(inside))] + rng.normal(0, 0.02, 2)
    return float(x), float(y)


def _beading(rng: np.random.Generator, anatomy: Anatomy, *, quadrants: int) -> tuple[list[Lesion], Anatomy]:
    """Veins that swell and narrow like a string of beads, one stretch in each of so many quadrants."""
    trunks = anatomy.trunks
    widths, found = trunks.widths.copy(), []
    steps = widths.shape[1]
    for row in rng.permutation(np.flatnonzero(trunks.vein))[:quadrants]:
        first = int(rng.integers(steps // 8, steps // 2))
        stretch = np.arange(first, first + steps // 4)
        beads = np.sin(np.pi * (stretch - first) * float(rng.uniform(0.45, 0.6)))
        widths[row, stretch] *= (1.15 + 0.5 * beads).astype(np.float32)
        x, y = (float(each) for each in trunks.points[row, first + steps // 8])
        reach = float(np.hypot(*(trunks.points[row, stretch[-1]] - trunks.points[row, first])) / 2)
        found.append(Lesion(kind=VENOUS_BEADING, x=x, y=y, radius=reach))
    return found, replace(anatomy, trunks=replace(trunks, widths=widths))
