"""What the rendered eyes show: the grades, what belongs to each, and that they look like a real one."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter

from starling.trainer.data.synth import artefacts, fundus, lesions
from starling.trainer.data.synth.anatomy import grow
from starling.trainer.data.synth.camera import Exposure, usual_exposure
from starling.trainer.data.synth.layers import Array
from starling.trainer.data.synth.patients import EYEPACS_SHARES, patient, stream

SIZE = 384


def pixels(seed: int, index: int) -> Array:
    painted = fundus.paint(seed, index, fundus.plan(seed, index, SIZE))
    return np.asarray(Image.open(io.BytesIO(painted)), dtype=np.float32)


def clean(level: int, eye: int) -> tuple[int, fundus.Plan]:
    """The first image of this level and eye without an artefact."""
    plans = (
        (index, fundus.plan(1, index, SIZE))
        for index in range(eye, 2000, 2)
        if patient(1, index // 2).grades[eye] == level
    )
    return next((index, planned) for index, planned in plans if not planned.artefacts)


def test_grades_are_as_unbalanced_as_those_of_eyepacs() -> None:
    for count in (200, 2000):
        found = Counter(grade for number in range(count) for grade in patient(3, number).grades)
        for grade, share in enumerate(EYEPACS_SHARES):
            assert abs(found[grade] / (2 * count) - share / sum(EYEPACS_SHARES)) < 0.015, found


def test_the_eyes_of_a_patient_are_alike_but_not_the_same() -> None:
    pairs = [patient(1, number).grades for number in range(1000)]
    same = sum(left == right for left, right in pairs) / len(pairs)
    assert 0.8 < same < 0.93
    left, right = (fundus.plan(1, 8 + eye, SIZE) for eye in range(2))
    assert left.patient == right.patient
    assert not np.array_equal(left.anatomy.trunks.points, right.anatomy.trunks.points)


def test_the_disc_is_on_the_nasal_side() -> None:
    for index in range(8):
        planned = fundus.plan(2, index, SIZE)
        x = planned.frame.pixels(np.array(planned.anatomy.disc, dtype=np.float32))[0]
        assert (x < planned.frame.fovea[0]) == planned.name.endswith("_left")


@pytest.mark.parametrize("seed", range(12))
def test_lesions_follow_the_scale(seed: int) -> None:
    eye = grow(stream(seed, 1), patient(seed, 1))
    kinds = [Counter(each.kind for each in lesions.place(stream(seed, 2), grade, eye)[0]) for grade in range(5)]
    severe = {lesions.VENOUS_BEADING, lesions.IRMA}
    proliferative = {lesions.NEOVESSEL, lesions.PRERETINAL}
    assert not kinds[0]
    assert set(kinds[1]) == {lesions.MICROANEURYSM}
    assert kinds[2][lesions.HAEMORRHAGE]
    assert not set(kinds[2]) & (severe | proliferative)
    assert kinds[3][lesions.VENOUS_BEADING] >= 2
    assert not set(kinds[3]) & proliferative
    assert set(kinds[4]) & proliferative


def test_severe_eyes_bleed_in_every_quadrant() -> None:
    eye = grow(stream(1, 1), patient(1, 1))
    found = [each for each in lesions.place(stream(1, 2), 3, eye)[0] if each.kind == lesions.HAEMORRHAGE]
    quadrants = Counter((each.x > 0, each.y > 0) for each in found)
    assert len(quadrants) == 4
    assert min(quadrants.values()) >= 16


def test_veins_are_beaded_where_it_is_said() -> None:
    eye = grow(stream(1, 1), patient(1, 1))
    found, beaded = lesions.place(stream(1, 2), 3, eye)
    changed = np.flatnonzero((beaded.trunks.widths != eye.trunks.widths).any(axis=1))
    assert len(changed) == sum(each.kind == lesions.VENOUS_BEADING for each in found)
    assert eye.trunks.vein[changed].all()


def test_four_pictures_in_ten_have_an_artefact_and_every_kind_comes() -> None:
    drawn = [artefacts.draw(stream(1, number)) for number in range(3000)]
    assert abs(sum(map(bool, drawn)) / len(drawn) - artefacts.SHARE) < 0.03
    assert {name for names in drawn for name in names} == set(artefacts.ARTEFACTS)


@pytest.mark.parametrize("artefact", sorted(artefacts.OVERLAYS))
@pytest.mark.parametrize("seed", range(3))
def test_what_lies_before_the_lens_covers_some_of_the_picture(artefact: str, seed: int) -> None:
    frame = fundus.plan(1, 0, SIZE).frame
    plain = np.full((3, SIZE, SIZE), 0.5, dtype=np.float32)
    picture = plain.copy()
    artefacts.before_the_lens(stream(seed), picture, frame, (artefact,))
    touched = (np.abs(picture - plain) > 0.02).any(axis=0).mean()
    assert 0.0005 < touched < 0.6
    assert 0 <= picture.min() <= picture.max() <= 1


CHANGES: dict[str, Callable[[Exposure, Exposure], bool]] = {
    artefacts.BLUR: lambda usual, spoiled: spoiled.softness > 2 * usual.softness,
    artefacts.UNDEREXPOSED: lambda usual, spoiled: spoiled.gain < 0.8 * usual.gain,
    artefacts.OVEREXPOSED: lambda usual, spoiled: spoiled.gain > 1.2 * usual.gain,
    artefacts.CAST: lambda usual, spoiled: spoiled.colour != usual.colour,
    artefacts.COMPRESSION: lambda usual, spoiled: spoiled.quality < 40 < usual.quality,
}


def test_artefacts_of_the_exposure_change_that_and_nothing_else() -> None:
    usual = usual_exposure(stream(1), patient(1, 0))
    for artefact in artefacts.ARTEFACTS:
        spoiled = artefacts.re_expose(stream(2), usual, (artefact,))
        assert CHANGES[artefact](usual, spoiled) if artefact in CHANGES else spoiled == usual


def test_a_crop_moves_the_eye_and_its_field_together() -> None:
    frame = fundus.plan(1, 0, SIZE).frame
    moved = artefacts.reframe(stream(1), frame, (artefacts.CROP,))
    step = np.subtract(moved.centre, frame.centre)
    assert np.hypot(*step) > 0.09 * SIZE
    assert np.allclose(step, np.subtract(moved.fovea, frame.fovea))
    assert artefacts.reframe(stream(1), frame, (artefacts.DUST,)) == frame
    assert set(CHANGES) | set(artefacts.OVERLAYS) | {artefacts.CROP} == set(artefacts.ARTEFACTS)


@pytest.mark.parametrize("eye", [0, 1])
def test_lesions_are_where_the_table_says(eye: int) -> None:
    """Haemorrhages are darker than what is around them, on right eyes as on left ones."""
    index, planned = clean(2, eye)
    green = pixels(1, index)[..., 1]
    darker = []
    for spot in planned.spots:
        if spot.kind != lesions.HAEMORRHAGE:
            continue
        y, x, reach = round(spot.y), round(spot.x), round(3 * spot.radius) + 4
        patch = green[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        darker.append(green[min(y, SIZE - 1), min(x, SIZE - 1)] < 0.85 * np.median(patch))
    assert len(darker) >= 3
    assert sum(darker) / len(darker) > 0.7, "some lie on vessels, at the edge, or are tiny"


def look(picture: Array) -> dict[str, float]:
    """What makes a photograph of the retina: colour, and how dark vessels are and how much room they take."""
    size = len(picture)
    at = (np.arange(size) - size / 2) / (size / 2)
    inside = np.hypot(at[:, None], at[None, :]) < 0.8
    smooth = Image.fromarray(picture.astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 30))
    contrast = (picture / np.maximum(np.asarray(smooth, dtype=np.float32), 1))[inside]
    red, green, blue = picture[inside].mean(axis=0)
    return {
        "green to red": green / red,
        "blue to red": blue / red,
        "vessels, red": np.percentile(contrast[:, 0], 2),
        "vessels, green": np.percentile(contrast[:, 1], 2),
        "room of vessels": (contrast[:, 1] < 0.85).mean(),
    }


def test_rendered_eyes_look_like_a_photographed_one() -> None:
    photo = skimage.data.retina()  # type: ignore[no-untyped-call]
    photograph = Image.fromarray(photo).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    real = look(np.asarray(photograph, dtype=np.float32))
    indices = [index for index in range(60) if not any(fundus.plan(1, index, SIZE).artefacts)]
    healthy = [look(pixels(1, index)) for index in indices if patient(1, index // 2).grades[index % 2] == 0][:12]
    for name, value in real.items():
        rendered = [each[name] for each in healthy]
        assert 0.65 * value < np.median(rendered) < 1.5 * value, name
        assert np.ptp(rendered) > 0.03 * value, f"{name}: all alike"
