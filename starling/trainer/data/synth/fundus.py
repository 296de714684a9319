"""One rendered fundus photograph."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from starling.trainer.data.synth import artefacts
from starling.trainer.data.synth.anatomy import Anatomy, grow
from starling.trainer.data.synth.camera import Exposure, Frame, usual_exposure, usual_frame
from starling.trainer.data.synth.layers import Array
from starling.trainer.data.synth.lesions import Lesion, place
from starling.trainer.data.synth.painting import retina
from starling.trainer.data.synth.patients import EYES, Patient, patient, stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A lesion that can be seen on the picture, in its pixels; a circle holds all of it."""

    kind: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that there is to a picture before it is painted."""

    name: str
    level: int
    artefacts: tuple[str, ...]
    spots: list[Spot]
    patient: Patient
    anatomy: Anatomy
    lesions: list[Lesion]
    frame: Frame


def name_of(index: int) -> str:
    """Of image `index`, without its suffix: patients are counted from 1, the left eye comes first."""
    return f"{index // 2 + 1}_{EYES[index % 2]}"


def plan(seed: int, index: int, size: int) -> Plan:
    """What image `index` shows: a pure function of its arguments, and much faster than painting it."""
    number, eye = divmod(index, 2)
    who, rng = patient(seed, number), stream(seed, number, 2 + eye)
    level = who.grades[eye]
    wrong = artefacts.draw(rng)
    frame = artefacts.reframe(rng, usual_frame(rng, who, size=size, mirrored=eye == 1), wrong)
    found, eye_anatomy = place(rng, level, grow(rng, who))
    return Plan(
        name=name_of(index),
        level=level,
        artefacts=wrong,
        spots=_spots(found, frame),
        patient=who,
        anatomy=eye_anatomy,
        lesions=found,
        frame=frame,
    )


def paint(seed: int, index: int, planned: Plan) -> bytes:
    """The JPEG file of a planned picture."""
    rng = stream(seed, index, 4)
    exposure = artefacts.re_expose(rng, usual_exposure(rng, planned.patient), planned.artefacts)
    picture = retina(rng, planned.patient, planned.anatomy, planned.lesions, planned.frame)
    artefacts.before_the_lens(rng, picture, planned.frame, planned.artefacts)
    pixels = _develop(rng, picture, planned.frame, exposure)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=exposure.quality)
    return buffer.getvalue()


def _spots(found: list[Lesion], frame: Frame) -> list[Spot]:
    spots = []
    for lesion in found:
        x, y = (float(each) for each in frame.pixels(np.array([lesion.x, lesion.y], dtype=np.float32)))
        if frame.shows(x, y):
            spots.append(Spot(kind=lesion.kind, x=x, y=y, radius=lesion.radius * frame.radius))
    return spots


def _develop(rng: np.random.Generator, picture: Array, frame: Frame, exposure: Exposure) -> Array:
    """Light [3, size, size] -> pixels [size, size, 3]: lit, exposed, blurred, seen through the field, with noise."""
    size = frame.size
    across, down = frame.grid()
    distance = (across - exposure.light[0]) ** 2 + (down - exposure.light[1]) ** 2
    light = exposure.gain * np.clip(1.05 - exposure.falloff * distance, 0.1, None)
    exposed = np.empty((size, size, 3), dtype=np.uint8)
    for channel in range(3):
        value = picture[channel] * (light * exposure.colour[channel])
        value = 0.45 + (value - 0.45) * exposure.contrast
        exposed[..., channel] = np.clip(value, 0, 1) * 255
    soft = Image.fromarray(exposed).filter(ImageFilter.GaussianBlur(exposure.softness * size / 1000))
    field = frame.field()[..., None]
    grain = exposure.noise * rng.standard_normal((size, size, 1), dtype=np.float32)
    grain = grain * (0.25 + 0.75 * field) + 2 * (1 - field)
    return np.clip(np.asarray(soft) * field + grain, 0, 255).astype(np.uint8)
