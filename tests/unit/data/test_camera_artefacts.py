"""Artefacts on training images."""

from __future__ import annotations

import pytest
import torch

from starling.trainer.data.camera_artefacts import add_artefacts


def grey(count: int) -> torch.Tensor:
    return torch.full((count, 3, 24, 32), 0.4)


def changed(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.4).abs().amax(dim=(1, 2, 3)) > 1e-3


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_the_asked_for_share_is_changed(share: float, least: int, most: int) -> None:
    torch.manual_seed(0)
    found = add_artefacts(grey(200), share)
    assert least <= int(changed(found).sum()) <= most
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_the_draws_are_torchs_own() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(add_artefacts(grey(8), 0.5))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_dust_darkens_and_light_leaks_in() -> None:
    torch.manual_seed(3)
    found = add_artefacts(grey(50), 1.0)
    assert (found.amin(dim=(1, 2, 3)) < 0.35).float().mean() > 0.5
    assert (found.amax(dim=(1, 2, 3)) > 0.5).float().mean() > 0.5
