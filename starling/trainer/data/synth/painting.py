"""The retina as it reflects light: colour of the background, vessels and lesions, before any camera.

Blood absorbs: every layer of it is a density that light is weakened by, most of all green and blue. What is deposited
in the retina, or white by nature, covers what is below it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from starling.trainer.data.synth.anatomy import Anatomy, Vessels
from starling.trainer.data.synth.camera import Frame
from starling.trainer.data.synth.layers import Array, Canvas, add_bump, smooth_noise
from starling.trainer.data.synth.lesions import COTTON_WOOL, EXUDATE, HAEMORRHAGE, MICROANEURYSM, PRERETINAL, Lesion
from starling.trainer.data.synth.patients import Patient

Colour = tuple[float, float, float]

# Red, green and blue from 0 to 1, by pigment: blond, medium, dark.
FUNDUS = ((0.86, 0.42, 0.28), (0.80, 0.335, 0.23), (0.60, 0.24, 0.13))
DISC = (1.0, 0.86, 0.55)
CUP = (1.0, 0.97, 0.78)
EXUDATE_COLOUR = (1.0, 0.88, 0.48)
COTTON_COLOUR = (1.0, 0.86, 0.68)
DRUSEN_COLOUR = (1.0, 0.64, 0.38)

# How much a density of 1 absorbs of red, green and blue (natural logarithm).
VESSEL_ABSORBS = (0.18, 0.84, 0.56)
BLEED_ABSORBS = (0.42, 1.30, 1.00)
PIGMENT_ABSORBS = (0.16, 0.42, 0.50)

# A vessel is a cylinder: (share of its width, share of its density) from the outside in.
CYLINDER = ((1.0, 0.5), (0.78, 0.8), (0.5, 1.0))


def retina(rng: np.random.Generator, patient: Patient, anatomy: Anatomy, lesions: list[Lesion], frame: Frame) -> Array:
    """[3, size, size]: reflected light, about 0 to 1; no field of view and no camera yet."""
    vessels, reflex = _vessels(anatomy, lesions, frame)
    picture = _background(rng, patient, frame)
    _macula(rng, patient, frame, picture)
    _disc(rng, anatomy, frame, picture)
    _drusen(rng, patient, frame, picture)
    _deposits(lesions, frame, picture)
    bleeds = _bleeds(rng, lesions, frame)
    for channel in range(3):
        absorbed = np.maximum(VESSEL_ABSORBS[channel] * vessels, BLEED_ABSORBS[channel] * bleeds)
        picture[channel] *= np.exp(-absorbed) * (1 + (0.10, 0.22, 0.16)[channel] * reflex)
    return picture


def cover(picture: Array, share: Array, colour: Colour) -> None:
    """Lay a colour over [3, size, size], in place, where `share` [size, size] is above 0."""
    for channel in range(3):
        picture[channel] += share * (np.float32(colour[channel]) - picture[channel])


def _background(rng: np.random.Generator, patient: Patient, frame: Frame) -> Array:
    base = [np.interp(patient.pigment, (0, 0.5, 1), [each[channel] for each in FUNDUS]) for channel in range(3)]
    size = frame.size
    broad = 0.05 * smooth_noise(rng, size, 5) + 0.035 * smooth_noise(rng, size, 13)
    fine = 0.016 * smooth_noise(rng, size, 44) + 0.016 * smooth_noise(rng, size, 120)
    choroid = _choroid(rng, patient, frame)
    lean = 1 + 0.12 * (patient.redness - 0.5)
    picture = np.empty((3, size, size), dtype=np.float32)
    for channel, (value, tone, mottle, shine) in enumerate(
        zip(base, (lean, 1 / lean, 1), (0.45, 1.0, 1.0), (0.35, 1.0, 0.8), strict=True)
    ):
        picture[channel] = np.float32(value * tone) * np.exp(mottle * (broad + fine) + shine * choroid)
    return picture


def _choroid(rng: np.random.Generator, patient: Patient, frame: Frame) -> Array:
    """Bands of the large choroidal vessels, which show where there is little pigment before them."""
    field = smooth_noise(rng, frame.size, 17)
    bands = np.exp(-((field / 0.3) ** 2)) - 0.45
    across, down = frame.grid()
    edge = np.clip(across**2 + down**2, 0.1, 1)
    strength = 0.03 + 0.17 * max(0.0, 1 - 2 * patient.pigment) + 0.10 * max(0.0, 2 * patient.pigment - 1.3)
    choroid: Array = (strength * bands * edge).astype(np.float32)
    return choroid


def _macula(rng: np.random.Generator, patient: Patient, frame: Frame, picture: Array) -> None:
    """A darker spot in a darker disc; in the young, light glints on the fovea and along the arcades' inner side."""
    dark = np.zeros(picture.shape[1:], dtype=np.float32)
    radius, strength = frame.radius, float(rng.uniform(0.75, 1.3))
    add_bump(dark, frame.fovea, (0.17 * radius, 0.15 * radius), 0.5 * strength)
    add_bump(dark, frame.fovea, (0.055 * radius, 0.055 * radius), 0.5 * strength)
    glint = np.zeros_like(dark)
    youth = max(0.0, 0.6 - patient.age)
    add_bump(glint, frame.fovea, (0.009 * radius, 0.009 * radius), 0.6 * youth)
    ring = np.zeros_like(dark)
    add_bump(ring, frame.fovea, (0.42 * radius, 0.34 * radius), 0.16 * youth)
    for channel in range(3):
        picture[channel] *= np.exp((0.5, 1.0, 1.0)[channel] * ring - PIGMENT_ABSORBS[channel] * dark)
        picture[channel] += glint


def _disc(rng: np.random.Generator, anatomy: Anatomy, frame: Frame, picture: Array) -> None:
    centre = frame.pixels(np.array(anatomy.disc, dtype=np.float32))
    across, down = (radius * frame.radius for radius in anatomy.disc_radii)
    place = (float(centre[0]), float(centre[1]))
    halo = np.zeros(picture.shape[1:], dtype=np.float32)
    add_bump(halo, place, (2.6 * across, 2.2 * down), float(rng.uniform(0.10, 0.24)))
    add_bump(halo, place, (1.25 * across, 1.25 * down), float(rng.uniform(0.02, 0.2)))
    cover(picture, halo, (0.98, 0.66, 0.42))
    lean = float(rng.uniform(-0.08, 0.08)) * across
    brightness = float(rng.uniform(0.84, 1.0))
    away = _away(frame.size, place, (across, down))
    rim = np.clip((1 - away) * across / (0.14 * across + 1) + 0.5, 0, 1)
    tissue = tuple(brightness * value for value in DISC)
    cover(picture, (rim * (0.86 - 0.16 * np.clip(away, 0, 1))).astype(np.float32), (tissue[0], tissue[1], tissue[2]))
    hollow = _away(frame.size, (place[0] + lean, place[1]), (anatomy.cup * across, anatomy.cup * down))
    share = 0.75 / (1 + np.exp(np.clip((hollow - 1) * 7, -30, 30)))
    cover(picture, share.astype(np.float32), CUP)


def _away(size: int, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """[size, size]: distance from a centre, 1 on the ellipse of these radii."""
    at = np.arange(size, dtype=np.float32)
    distance: Array = np.hypot(((at - centre[0]) / radii[0])[None, :], ((at - centre[1]) / radii[1])[:, None])
    return distance


def _drusen(rng: np.random.Generator, patient: Patient, frame: Frame, picture: Array) -> None:
    """Soft yellow spots of age: no sign of diabetes, but like one."""
    if patient.age < 0.72 or rng.random() < 0.35:
        return
    share = np.zeros(picture.shape[1:], dtype=np.float32)
    for _ in range(int(rng.integers(6, 45))):
        x, y = (float(each) for each in np.asarray(frame.fovea) + rng.normal(0, 0.2 * frame.radius, 2))
        size = float(rng.uniform(0.004, 0.011)) * frame.radius
        add_bump(share, (x, y), (size, size), float(rng.uniform(0.25, 0.6)))
    cover(picture, np.minimum(share, np.float32(0.7)), DRUSEN_COLOUR)


def _deposits(lesions: list[Lesion], frame: Frame, picture: Array) -> None:
    exudates = [each for each in lesions if each.kind == EXUDATE]
    if exudates:
        cover(picture, np.float32(0.85) * _patches(exudates, frame, blur=0.8), EXUDATE_COLOUR)
    wool = [each for each in lesions if each.kind == COTTON_WOOL]
    if wool:
        share = np.zeros(picture.shape[1:], dtype=np.float32)
        for lesion in wool:
            x, y = (float(each) for each in frame.pixels(np.array([lesion.x, lesion.y], dtype=np.float32)))
            add_bump(share, (x, y), (0.5 * lesion.radius * frame.radius, 0.38 * lesion.radius * frame.radius), 0.8)
        cover(picture, np.minimum(share, np.float32(0.8)), COTTON_COLOUR)


def _bleeds(rng: np.random.Generator, lesions: list[Lesion], frame: Frame) -> Array:
    """Density of blood outside vessels."""
    small = [each for each in lesions if each.kind in (MICROANEURYSM, HAEMORRHAGE)]
    large = [each for each in lesions if each.kind == PRERETINAL]
    bleeds = (
        np.float32(0.8) * _patches(small, frame, blur=1.5) if small else np.zeros((frame.size, frame.size), np.float32)
    )
    if small:
        bleeds *= np.clip(0.95 + 0.3 * smooth_noise(rng, frame.size, 60), 0.4, 1.3)
    if large:
        bleeds = np.maximum(bleeds, _patches(large, frame, blur=4))
    return bleeds


def _patches(lesions: Iterable[Lesion], frame: Frame, *, blur: float) -> Array:
    """Density of lesions that are patches; their edges are blurred by so many thousandths of the field's radius."""
    canvas = Canvas(frame.size)
    for lesion in lesions:
        assert lesion.outline is not None, lesion.kind
        canvas.polygon(frame.pixels(lesion.outline))
    return canvas.density(blur=blur / 1000 * frame.radius)


def _vessels(anatomy: Anatomy, lesions: list[Lesion], frame: Frame) -> tuple[Array, Array]:
    """Density of blood in vessels, and of the reflex on the larger arteries."""
    canvas, reflex = Canvas(frame.size), Canvas(frame.size)
    wild = [each.vessels for each in lesions if each.vessels is not None]
    bundles = [*anatomy.branches, *wild, anatomy.trunks]
    placed = [(frame.pixels(bundle.points), bundle.widths * frame.radius, _strength(bundle)) for bundle in bundles]
    for share, density in CYLINDER:
        for points, widths, strength in placed:
            canvas.ribbons(points, share * widths, density * strength)
    points, widths, _ = placed[-1]
    reflex.ribbons(points, 0.28 * widths, np.where(anatomy.trunks.vein > 0, np.float32(0.25), np.float32(0.8)))
    return canvas.density(), reflex.density()


def _strength(bundle: Vessels) -> Array:
    """[n]: density in the middle of each vessel; thin ones are pale, veins darker than arteries."""
    thickness = np.clip(bundle.widths[:, 0] / 0.022, 0.02, 1.2) ** 0.45
    strength: Array = np.clip(thickness * (0.72 + 0.26 * bundle.vein), 0, 1)
    return strength
