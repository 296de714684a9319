"""What goes wrong when an eye is photographed. Drawn without regard to the grade, for 40 % of the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from starling.trainer.data.synth.camera import Exposure, Frame, moved
from starling.trainer.data.synth.layers import SUPERSAMPLING, Array, Canvas, add_bump
from starling.trainer.data.synth.painting import cover

SHARE = 0.4
SECOND = 0.15
"""Of the pictures with an artefact, how many have another one too."""

DUST, FLARE, EYELASH = "dust", "flare", "eyelash"
BLUR, UNDEREXPOSED, OVEREXPOSED, CAST, COMPRESSION = "blur", "underexposed", "overexposed", "cast", "compression"
CROP = "crop"
ARTEFACTS = (DUST, FLARE, BLUR, UNDEREXPOSED, OVEREXPOSED, CAST, EYELASH, COMPRESSION, CROP)


def draw(rng: np.random.Generator) -> tuple[str, ...]:
    """The artefacts of one picture; mostly none."""
    if rng.random() >= SHARE:
        return ()
    count = 2 if rng.random() < SECOND else 1
    chosen = sorted(int(each) for each in rng.permutation(len(ARTEFACTS))[:count])
    return tuple(ARTEFACTS[each] for each in chosen)


def reframe(rng: np.random.Generator, frame: Frame, artefacts: tuple[str, ...]) -> Frame:
    """The frame with the field of view partly off the picture, if that is among the artefacts."""
    if CROP not in artefacts:
        return frame
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.24)
    return moved(frame, right=float(distance * np.cos(direction)), down=float(distance * np.sin(direction)))


def re_expose(rng: np.random.Generator, exposure: Exposure, artefacts: tuple[str, ...]) -> Exposure:
    """The exposure with what the artefacts change about it."""
    if BLUR in artefacts:
        exposure = replace(exposure, softness=float(rng.uniform(4.0, 11.0)))
    if UNDEREXPOSED in artefacts:
        exposure = replace(exposure, gain=float(rng.uniform(0.3, 0.6)), noise=float(rng.uniform(3, 6)))
    if OVEREXPOSED in artefacts:
        exposure = replace(exposure, gain=float(rng.uniform(1.4, 2.0)))
    if CAST in artefacts:
        red, green, blue = (float(each) for each in rng.uniform((0.6, 0.8, 0.6), (1.0, 1.3, 1.7)))
        old = exposure.colour
        exposure = replace(exposure, colour=(old[0] * red, old[1] * green, old[2] * blue))
    if COMPRESSION in artefacts:
        exposure = replace(exposure, quality=int(rng.integers(14, 34)))
    return exposure


def before_the_lens(rng: np.random.Generator, picture: Array, frame: Frame, artefacts: tuple[str, ...]) -> None:
    """Lay dust, flares and lashes over [3, size, size], in place; they are as sharp or blurred as the camera is."""
    for artefact in artefacts:
        if artefact in OVERLAYS:
            OVERLAYS[artefact](rng, picture, frame)


def _dust(rng: np.random.Generator, picture: Array, frame: Frame) -> None:
    """Specks on the lens, out of focus: round, pale or dark, sharper when they are small."""
    for colour, share in (((0.12, 0.06, 0.04), 0.5), ((0.95, 0.8, 0.62), 0.45)):
        layer = np.zeros(picture.shape[1:], dtype=np.float32)
        for _ in range(int(rng.integers(1, 10))):
            x, y = _in_field(rng, frame)
            size = frame.radius * float(rng.uniform(0.004, 0.022))
            add_bump(layer, (x, y), (size, size), float(rng.uniform(0.4, 1)))
        cover(picture, np.minimum(layer, np.float32(1)) * np.float32(share), colour)


def _flare(rng: np.random.Generator, picture: Array, frame: Frame) -> None:
    """Light from the iris or the lens: a bright crescent at the edge of the field, or a ghost inside."""
    layer = np.zeros(picture.shape[1:], dtype=np.float32)
    direction = float(rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.65:
        across, down = frame.grid()
        lit = across * np.cos(direction) + down * np.sin(direction)
        edge = np.clip((np.hypot(across, down) - rng.uniform(0.7, 0.85)) / 0.25, 0, 1)
        layer += (edge * np.clip(lit - 0.2, 0, 1)).astype(np.float32)
    else:
        distance = frame.radius * float(rng.uniform(0.2, 0.75))
        at = (frame.centre[0] + distance * np.cos(direction), frame.centre[1] + distance * np.sin(direction))
        size = frame.radius * float(rng.uniform(0.06, 0.16))
        add_bump(layer, at, (size, size * float(rng.uniform(0.5, 1))), 0.7)
    colours = ((0.75, 0.85, 1.0), (1.0, 0.93, 0.78), (0.8, 1.0, 0.85))
    cover(picture, np.minimum(layer, np.float32(0.8)) * np.float32(rng.uniform(0.6, 1)), colours[rng.integers(3)])


def _eyelash(rng: np.random.Generator, picture: Array, frame: Frame) -> None:
    """Lashes, as dark bows that come in from above or below, and the shadow of the lid."""
    canvas, above = Canvas(frame.size), 1 if rng.random() < 0.6 else -1
    edge = frame.centre[1] - above * frame.radius
    along = np.linspace(0, 1, 12, dtype=np.float32)
    count = int(rng.integers(3, 11))
    start, length, lean = frame.radius * rng.uniform((-0.6, 0.2, -0.35), (0.6, 0.6, 0.35), (count, 3)).T[..., None]
    points = np.stack([frame.centre[0] + start + lean * along**1.6, edge + above * length * along], axis=-1)
    widths = frame.radius * rng.uniform(0.012, 0.03, (count, 1)) * (1.02 - along) + 1 / SUPERSAMPLING
    canvas.ribbons(points.astype(np.float32), widths.astype(np.float32), np.ones(count, dtype=np.float32))
    cover(picture, np.float32(0.75) * canvas.density(), (0.14, 0.07, 0.05))
    shadow = np.clip((0.45 + above * (frame.centre[1] - np.arange(frame.size)) / frame.radius - 1.0) / 0.35, 0, 1)
    picture *= (1 - 0.6 * shadow)[None, :, None].astype(np.float32)


def _in_field(rng: np.random.Generator, frame: Frame) -> tuple[float, float]:
    direction, distance = rng.uniform(0, 2 * np.pi), frame.radius * 0.97 * rng.uniform() ** 0.5
    x, y = frame.centre[0] + distance * np.cos(direction), frame.centre[1] + distance * np.sin(direction)
    return float(x), float(y)


OVERLAYS: dict[str, Callable[[np.random.Generator, Array, Frame], None]] = {
    DUST: _dust,
    FLARE: _flare,
    EYELASH: _eyelash,
}
