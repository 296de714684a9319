from __future__ import annotations

import pytest
import torch

from starling.trainer.data.augment import Augment

IMAGES = torch.arange(1, 1 + 20 * 2 * 5 * 4, dtype=torch.int32).view(20, 2, 5, 4)
INDICES = list(range(100, 120))


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The slow way: pad, then cut."""
    padded = torch.nn.functional.pad(image, (9, 9, 9, 9))
    height, width = image.shape[-2:]
    return padded[..., 9 - down : 9 - down + height, 9 - right : 9 - right + width]


@pytest.mark.parametrize("shift", [1, 2, 6])
def test_every_image_is_one_of_its_shifts(shift: int) -> None:
    moved = Augment(shift=shift).apply(IMAGES, INDICES, seed=1, epoch=2)
    reach = range(-shift, shift + 1)
    found = set()
    for before, after in zip(IMAGES, moved, strict=True):
        matches = [(d, r) for d in reach for r in reach if torch.equal(shifted(before, d, r), after)]
        assert matches
        found.add(matches[0])
    assert len(found) > 4


def test_some_images_are_mirrored_and_some_are_not() -> None:
    flipped = Augment(flip=True).apply(IMAGES, INDICES, seed=1, epoch=2)
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(IMAGES, flipped, strict=True)]
    unchanged = [torch.equal(after, before) for before, after in zip(IMAGES, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, unchanged, strict=True))
    assert 4 <= sum(mirrored) <= 16


def test_a_sample_is_augmented_alike_in_any_batch() -> None:
    augment = Augment(shift=2, flip=True)
    whole = augment.apply(IMAGES, INDICES, seed=1, epoch=2)
    alone = [augment.apply(IMAGES[i : i + 1], INDICES[i : i + 1], seed=1, epoch=2)[0] for i in range(20)]
    assert torch.equal(whole, torch.stack(alone))


@pytest.mark.parametrize("other", [{"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}])
def test_seeds_and_epochs_draw_anew(other: dict[str, int]) -> None:
    augment = Augment(shift=2, flip=True)
    assert not torch.equal(augment.apply(IMAGES, INDICES, seed=1, epoch=2), augment.apply(IMAGES, INDICES, **other))
