"""600 rendered photographs of the retina with their grades: images that are always there, for a first try."""

from __future__ import annotations

import functools

from starling.trainer.data.sources.found import FoundImage, Source
from starling.trainer.data.synth import fundus
from starling.trainer.data.synth.folder import GENERATOR, SUFFIX
from starling.trainer.data.synth.patients import patient

RENDERED = "rendered-fundus"
IMAGES, SEED, SIZE = 600, 1, 128


def rendered_fundus() -> Source:
    """What `starling data synth fundus` would write with these numbers. They are painted when they are read."""
    return Source(description=RENDERED, layout=RENDERED, images=[_found(index) for index in range(IMAGES)])


def _found(index: int) -> FoundImage:
    number, eye = divmod(index, 2)
    return FoundImage(
        class_name=str(patient(SEED, number).grades[eye]),
        key=fundus.name_of(index) + SUFFIX,
        patient=str(number + 1),
        stamp=f"{GENERATOR}, seed {SEED}, {SIZE} pixels",
        read=functools.partial(_painted, index),
    )


def _painted(index: int) -> bytes:
    return fundus.paint(SEED, index, fundus.plan(SEED, index, SIZE))
