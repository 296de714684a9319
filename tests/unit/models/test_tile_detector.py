"""A detector that learns from tiles and looks at whole images."""

from __future__ import annotations

import pytest
import torch

from starling.trainer.models.tile_detector import TileDetector


@pytest.fixture
def detector() -> TileDetector:
    torch.manual_seed(0)
    return TileDetector(num_classes=3, in_channels=3, none=0, channels=(4, 8, 8)).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128), (33, 47)])
def test_the_map_has_a_place_for_every_stride_of_pixels(detector: TileDetector, height: int, width: int) -> None:
    with torch.no_grad():
        shown = detector.probability_map(torch.rand(2, 3, height, width))
    assert detector.stride == 4
    assert shown.shape == (2, 1, -(-height // 4), -(-width // 4))
    assert (shown >= 0).all()
    assert (shown <= 1).all()


def test_what_it_says_of_a_place_does_not_depend_on_the_image_around_it(detector: TileDetector) -> None:
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        whole = detector.probability_map(image)
        part = detector.probability_map(image[:, :, 32:96, 32:96])
    inner = slice(4, 12)  # away from the edges, where the padding is seen
    torch.testing.assert_close(part[:, :, inner, inner], whole[:, :, 8:24, 8:24][:, :, inner, inner])


def test_a_tile_of_one_place_has_the_probability_of_the_map(detector: TileDetector) -> None:
    tile = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        none = detector(tile).softmax(dim=1)[:, 0]
        torch.testing.assert_close(1 - none, detector.probability_map(tile).flatten())


def test_one_suspicious_place_is_not_averaged_away() -> None:
    detector = TileDetector(num_classes=2, in_channels=1, none=0, channels=(1,), sharpness=4.0)
    places = torch.full((1, 1, 16, 16), -5.0)
    places[0, 0, 3, 7] = 5.0
    detector.blocks = torch.nn.Sequential(torch.nn.Identity())
    torch.nn.init.ones_(detector.head.weight)
    assert detector.head.bias is not None
    torch.nn.init.zeros_(detector.head.bias)
    with torch.no_grad():
        assert detector(places).softmax(dim=1)[0, 1] > 0.9


@pytest.mark.parametrize("none", [0, 1, 2])
def test_the_class_without_lesions_may_be_anywhere(none: int) -> None:
    detector = TileDetector(num_classes=3, in_channels=1, none=none, channels=(4,)).eval()
    with torch.no_grad():
        logits = detector(torch.rand(5, 1, 8, 8))
    assert (logits[:, none] == 0).all()
    assert (logits[:, [place for place in range(3) if place != none]] != 0).any()


def test_it_learns_to_find_a_dot_and_shows_where() -> None:
    torch.manual_seed(0)
    detector = TileDetector(num_classes=2, in_channels=1, none=0, channels=(8, 8))
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.01)
    for _ in range(60):
        tiles, labels = torch.rand(32, 1, 16, 16) * 0.3, torch.arange(32) % 2
        tiles[1::2, :, 5:8, 9:12] = 1.0
        loss = torch.nn.functional.cross_entropy(detector(tiles), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image = torch.rand(1, 1, 64, 64) * 0.3
    image[:, :, 40:43, 20:23] = 1.0
    with torch.no_grad():
        shown = detector.eval().probability_map(image)[0, 0]
    row, column = divmod(int(shown.argmax()), shown.shape[1])
    assert abs(2 * row - 41) <= 3
    assert abs(2 * column - 21) <= 3
    assert shown.max() > 0.9
    assert shown.median() < 0.3
