"""Stores and folders of images to prepare datasets from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starling.infra.store import Store, open_store

WriteImage = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    folder.mkdir()
    return open_store(str(folder))


@pytest.fixture
def write_image(tmp_path: Path) -> WriteImage:
    """Writes an image of random pixels (their seed is the path) below tmp_path/images."""

    def write(path: str, *, mode: str = "RGB", height: int = 6, width: int = 5) -> Path:
        target = tmp_path / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        pixels = np.random.default_rng(list(path.encode())).integers(0, 256, (height, width, *channels), dtype=np.uint8)
        Image.fromarray(pixels).save(target)
        return target

    return write


@pytest.fixture
def images(tmp_path: Path, write_image: WriteImage) -> Path:
    """Two classes of ten small colour images."""
    for class_name in ("cat", "dog"):
        for number in range(10):
            write_image(f"{class_name}/{number:02}.png")
    return tmp_path / "images"
