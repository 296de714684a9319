"""Lists the objects of a folder store, without walking more of the tree than the prefix asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from starling.infra.store.base import ObjectInfo
from starling.infra.store.keys import is_segment
from starling.infra.store.oserrors import os_errors_named


def objects_below(root: Path, folder: str, beginning: str = "") -> Iterator[ObjectInfo]:
    """Objects below `folder` (relative, "" or ending in a slash) whose next segment starts with `beginning`.

    In key order. What vanishes while we look is left out. Raises the errors of `oserrors`.
    """
    for name in _names(root / folder, beginning):
        if name.endswith("/"):
            yield from objects_below(root, folder + name)
            continue
        path = root / folder / name
        with os_errors_named("list", path):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
        yield info(folder + name, found)


def info(key: str, found: os.stat_result) -> ObjectInfo:
    """What a listing says about the file of `key`."""
    # Each rewrite is a new file with a fresh stamp, so it shows in at least one of the three.
    tag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectInfo(key=key, size=found.st_size, modified_at=found.st_mtime, tag=tag)


def _names(folder: Path, beginning: str) -> list[str]:
    """Files, and folders with a slash behind them, so that the order of names is the order of the keys below them."""
    with os_errors_named("list", folder):
        try:
            with os.scandir(folder) as entries:
                wanted = [entry for entry in entries if entry.name.startswith(beginning) and is_segment(entry.name)]
                return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in wanted)
        except (FileNotFoundError, NotADirectoryError):
            return []
