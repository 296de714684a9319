"""How an eye comes onto the picture: where the field of view lies, and how the camera renders brightness and colour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from starling.trainer.data.synth.layers import Array
from starling.trainer.data.synth.patients import Patient

COLOURS = ((1.0, 1.0, 1.0), (1.06, 0.96, 0.82), (0.93, 1.03, 1.12), (1.05, 1.06, 0.7), (0.98, 0.93, 0.98))
"""Factors of red, green and blue by camera."""
QUALITIES = (92, 88, 90, 84, 87)
"""Of the JPEG files, by camera."""
NOTCHED = 3
"""This camera's field has a notch that tells which way is up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Where the eye is on a picture of size x size pixels."""

    size: int
    centre: tuple[float, float]
    """Of the field of view, in pixels."""
    radius: float
    """Of the field of view, in pixels."""
    fovea: tuple[float, float]
    """In pixels."""
    turn: float
    """Radians that the eye is rolled."""
    mirrored: bool
    """A right eye."""
    flat: float
    """The field ends this many radii above and below its centre, as in pictures that are wider than high."""
    notch: bool

    def pixels(self, points: Array) -> Array:
        """Points [..., 2] of the eye -> pixels."""
        x, y = points[..., 0] * self.radius, points[..., 1] * self.radius
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        across = (cos * x - sin * y) * (-1 if self.mirrored else 1)
        placed = np.stack([self.fovea[0] + across, self.fovea[1] + sin * x + cos * y], axis=-1)
        return placed.astype(np.float32)

    def shows(self, x: float, y: float) -> bool:
        """Whether a pixel lies on the picture and in the field of view."""
        across, down = (x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius
        on_picture = 0 <= x < self.size and 0 <= y < self.size
        return on_picture and np.hypot(across, down) < 0.99 and abs(down) < self.flat

    def field(self) -> Array:
        """[size, size]: 1 in the field of view, 0 outside, an edge of two pixels."""
        across, down = self.grid()
        inside = (1 - np.hypot(across, down)) * self.radius
        if self.flat < 1:
            inside = np.minimum(inside, (self.flat - np.abs(down)) * self.radius)
        if self.notch:
            tab = 0.06 - np.maximum(np.abs(across + down + 1.0 * 2**0.5) / 2, np.abs(across - down) / 2)
            inside = np.maximum(inside, tab * self.radius)
        return np.clip(inside / 2 + 0.5, 0, 1).astype(np.float32)

    def grid(self) -> tuple[Array, Array]:
        """x [1, size] and y [size, 1] of all pixels, in radii of the field from its centre."""
        at = np.arange(self.size, dtype=np.float32)
        return ((at - self.centre[0]) / self.radius)[None, :], ((at - self.centre[1]) / self.radius)[:, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """How the camera turns light into numbers."""

    gain: float
    colour: tuple[float, float, float]
    falloff: float
    """Share of the light that is missing at the edge of the field."""
    light: tuple[float, float]
    """Where the light is brightest, in radii from the centre of the field."""
    contrast: float
    softness: float
    """Standard deviation of the blur, in thousandths of the picture's size."""
    noise: float
    """Standard deviation, in grey levels."""
    quality: int


def usual_frame(rng: np.random.Generator, patient: Patient, *, size: int, mirrored: bool) -> Frame:
    """A usual picture: all of the field on it, or its upper and lower ends cut off."""
    cut = patient.camera in (1, 4)
    radius = size * (0.5 if cut else float(rng.uniform(0.475, 0.495)))
    centre = (size * (0.5 + float(rng.normal(0, 0.004))), size * (0.5 + float(rng.normal(0, 0.004))))
    aim = rng.normal(0, (0.09, 0.05)) - (0.08, 0)
    fovea = (centre[0] + radius * aim[0] * (1 if mirrored else -1), centre[1] + radius * float(aim[1]))
    return Frame(
        size=size,
        centre=centre,
        radius=radius,
        fovea=(float(fovea[0]), float(fovea[1])),
        turn=float(rng.normal(0, 0.05)),
        mirrored=mirrored,
        flat=float(rng.uniform(0.8, 0.9)) if cut else 1.0,
        notch=patient.camera == NOTCHED,
    )


def moved(frame: Frame, *, right: float, down: float) -> Frame:
    """The same picture, displaced by shares of its size."""
    step = (right * frame.size, down * frame.size)
    return replace(
        frame,
        centre=(frame.centre[0] + step[0], frame.centre[1] + step[1]),
        fovea=(frame.fovea[0] + step[0], frame.fovea[1] + step[1]),
    )


def usual_exposure(rng: np.random.Generator, patient: Patient) -> Exposure:
    """As a trained photographer makes them."""
    red, green, blue = (
        factor * float(jitter) for factor, jitter in zip(COLOURS[patient.camera], rng.normal(1, 0.03, 3), strict=True)
    )
    return Exposure(
        gain=float(rng.normal(1.0, 0.07)),
        colour=(red, green, blue),
        falloff=float(rng.uniform(0.12, 0.34)),
        light=(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.1))),
        contrast=float(rng.uniform(0.92, 1.12)),
        softness=float(rng.uniform(1.0, 1.9)),
        noise=float(rng.uniform(1.2, 3.5)),
        quality=QUALITIES[patient.camera],
    )
