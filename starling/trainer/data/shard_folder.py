"""The temporary folder in which shards are written. What a killed preparation left of its own, a later one removes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starling.infra.errors import StoreUnavailable
from starling.infra.store.oserrors import os_errors_named

PREFIX = "starling-shards-"
UNCLAIMED = 60.0
"""Seconds within which the maker of a folder has locked it."""


@contextmanager
def shard_folder() -> Iterator[Path]:
    """An empty folder, removed in the end. Raises the store's errors if none can be made."""
    place = _place()
    _remove_abandoned(place)
    with os_errors_named("make a temporary folder in", place):
        made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place)
    with made as name:
        claim = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # where there are no locks, nobody can think it abandoned
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(claim)


def _place() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise StoreUnavailable(
            f"cannot make a temporary folder: {error.strerror}; free some space there, or name another folder with "
            "TMPDIR"
        ) from error


def _remove_abandoned(place: Path) -> None:
    """The kernel drops a lock with its holder: a folder of ours that can be locked is nobody's."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < UNCLAIMED:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
