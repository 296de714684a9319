from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from starling.trainer.data.augment import DRAWS, Augment
from starling.trainer.seeding import seed_torch

EVERYTHING = Augment(
    flip=True,
    flip_vertical=True,
    rotate=180,
    shift=2,
    zoom=(0.9, 1.1),
    crop=0.8,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    channel_gain=0.1,
    blur=(0, 1.5),
    noise=(0, 0.05),
)


def picture(count: int = 1, channels: int = 3, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def drawn(count: int = 1, **values: float) -> torch.Tensor:
    """The middle of every range, but for what is named."""
    draws = torch.full((count, len(DRAWS)), 0.5)
    for name, value in values.items():
        draws[:, DRAWS.index(name)] = value
    return draws


def test_draws_are_a_function_of_seed_epoch_and_sample() -> None:
    draws = EVERYTHING.draws([5, 9, 5], seed=1, epoch=2)
    assert torch.equal(draws[0], draws[2])
    assert torch.equal(draws[1:2], EVERYTHING.draws([9], seed=1, epoch=2))
    others = [EVERYTHING.draws([5], seed=seed, epoch=epoch) for seed, epoch in ((1, 3), (2, 2))]
    assert all(not torch.equal(draws[:1], other) for other in others)


def test_draws_are_spread_evenly() -> None:
    draws = EVERYTHING.draws(range(4000), seed=0, epoch=0)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean(dim=0) - 0.5).abs().max() < 0.03
    assert torch.corrcoef(draws.T).triu(diagonal=1).abs().max() < 0.08


def test_each_image_is_changed_by_its_own_draws_alone() -> None:
    images, draws = picture(3), EVERYTHING.draws(range(3), seed=0, epoch=0)
    quiet = Augment(rotate=180, shift=2, zoom=(0.9, 1.1), brightness=0.3, blur=(0, 2))
    together = quiet.apply(images, draws)
    alone = torch.cat([quiet.apply(images[i : i + 1], draws[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_the_noise_is_torchs_own() -> None:
    images, draws = picture(2), drawn(2, noise=0.9)
    noisy = []
    for step in (0, 0, 1):
        seed_torch("step", step)
        noisy.append(Augment(noise=(0, 0.1)).apply(images, draws))
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])


def test_noise_is_as_strong_as_drawn() -> None:
    seed_torch("noise")
    grey = torch.full((2, 1, 64, 64), 0.5)
    draws = drawn(2)
    draws[:, DRAWS.index("noise")] = torch.tensor([0.0, 1.0 - 1e-6])
    noisy = Augment(noise=(0.02, 0.1)).apply(grey, draws)
    assert noisy[0].std().item() == pytest.approx(0.02, rel=0.05)
    assert noisy[1].std().item() == pytest.approx(0.1, rel=0.05)


def test_without_options_nothing_changes() -> None:
    images = picture(4)
    assert torch.equal(Augment().apply(images, EVERYTHING.draws(range(4), seed=0, epoch=0)), images)


@pytest.mark.parametrize(("name", "axis"), [("flip", -1), ("flip_vertical", -2)])
@pytest.mark.parametrize("also", [{}, {"shift": 1}])
def test_flips(name: str, axis: int, also: dict[str, Any]) -> None:
    images, augment = picture(), Augment(**{name: True}, **also)
    torch.testing.assert_close(augment.apply(images, drawn(**{name: 0.4})), images.flip(axis), atol=1e-5, rtol=0)
    torch.testing.assert_close(augment.apply(images, drawn(**{name: 0.6})), images, atol=1e-5, rtol=0)


def test_half_a_turn_and_a_quarter() -> None:
    images = picture(height=11, width=11)
    turned = Augment(rotate=180).apply(images, drawn(rotate=1.0))
    torch.testing.assert_close(turned, images.flip(-1, -2), atol=1e-4, rtol=0)
    quarter = Augment(rotate=90).apply(images, drawn(rotate=1.0))
    torch.testing.assert_close(quarter, images.rot90(1, (-2, -1)), atol=1e-4, rtol=0)


def test_a_rotated_image_keeps_its_shape() -> None:
    """A disc in a picture that is not square must not become an ellipse."""
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(60) - 29.5, indexing="ij")
    disc = (torch.hypot(rows, columns) < 15).float()[None, None]
    turned = Augment(rotate=180).apply(disc, drawn(rotate=0.7))
    assert (turned - disc).abs().mean() < 0.02  # its edge; an ellipse would be off by 0.1


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.99), (0.99, 0.0), (0.5, 0.99)])
def test_shifts_move_by_whole_pixels_and_leave_black(down: float, right: float) -> None:
    images = picture()
    moved = Augment(shift=2).apply(images, drawn(down=down, right=right))
    by = [math.floor(value * 5) - 2 for value in (down, right)]
    expected = images.roll(by, (-2, -1))
    for axis, step in zip((-2, -1), by, strict=True):
        length = abs(step)
        expected.narrow(axis, 0 if step >= 0 else expected.shape[axis] - length, length).zero_()
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_zoom_and_crop_enlarge() -> None:
    middle = torch.zeros(1, 1, 40, 40)
    middle[..., 15:25, 15:25] = 1
    twice = Augment(zoom=(1, 2)).apply(middle, drawn(zoom=1.0))
    assert twice.sum().item() == pytest.approx(400, rel=0.05)
    half = Augment(zoom=(0.5, 1)).apply(middle, drawn(zoom=0.0))
    assert half.sum().item() == pytest.approx(25, rel=0.1)
    corner = torch.zeros(1, 1, 40, 40)
    corner[..., :20, :20] = 1
    cropped = Augment(crop=0.5).apply(corner, drawn(crop=1.0, crop_down=0.0, crop_right=0.0))
    assert cropped.mean().item() == pytest.approx(1, abs=0.05)


def test_colours() -> None:
    images = picture() * 0.5
    brighter = Augment(brightness=0.5).apply(images, drawn(brightness=1.0))
    torch.testing.assert_close(brighter, images * 1.5)
    flat = Augment(contrast=1.0).apply(images, drawn(contrast=0.0))
    torch.testing.assert_close(flat, images.mean().expand_as(images))
    grey = Augment(saturation=1.0).apply(images, drawn(saturation=0.0))
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(images))
    redder = Augment(channel_gain=0.2).apply(images, drawn(gain0=1.0))
    torch.testing.assert_close(redder, images * torch.tensor([1.2, 1, 1]).view(1, 3, 1, 1))
    assert torch.equal(Augment(saturation=1.0).apply(images[:, :1], drawn(saturation=0.0)), images[:, :1])


def test_blur_is_a_gaussian_filter() -> None:
    dot = torch.zeros(1, 2, 31, 31)
    dot[0, 0, 15, 15] = 1
    blurred = Augment(blur=(0, 2)).apply(dot, drawn(blur=1.0))
    assert blurred[0, 1].abs().max() == 0
    assert blurred[0, 0].sum().item() == pytest.approx(1, abs=1e-4)
    offsets = torch.arange(31) - 15.0
    spread = (blurred[0, 0].sum(dim=1) * offsets**2).sum()
    assert spread.item() == pytest.approx(4, rel=0.05)
    sharp = Augment(blur=(0, 2)).apply(dot, drawn(blur=0.0))
    torch.testing.assert_close(sharp, dot)


def test_values_stay_between_black_and_white_under_any_precision() -> None:
    images, draws = picture(8), EVERYTHING.draws(range(8), seed=0, epoch=0)
    seed_torch("x")
    plain = EVERYTHING.apply(images, draws)
    with torch.autocast("cpu", torch.bfloat16):
        seed_torch("x")
        assert torch.equal(EVERYTHING.apply(images, draws), plain)
    assert plain.dtype == torch.float32
    assert plain.min() >= 0
    assert plain.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 5)])
def test_tiny_images(size: tuple[int, int]) -> None:
    images = picture(2, 1, *size)
    assert EVERYTHING.apply(images, EVERYTHING.draws([0, 1], seed=0, epoch=0)).shape == images.shape
