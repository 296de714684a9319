"""Steps of writing files so that others see them whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A fresh path beside `path` to write to and rename; whatever is left there at the end of the block is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def sync_folders(folder: Path, top: Path) -> None:
    """Put the names in `folder`, and the folder's own name in each one above up to `top`, on the disk."""
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if folder in (top, folder.parent):
            return
        folder = folder.parent
