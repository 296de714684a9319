"""How much of the disk the node's chunks take, counted by all its processes together, and which of them go first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

ROOM = 10
"""An eviction leaves one part in so many free, so that not every download has to look at every file."""


class _File(NamedTuple):
    used_at: float
    size: int
    path: str


class Usage:
    """Keeps the sum in `<folder>/usage`. It is only ever too large: what a killed process was allotted is found to be
    missing when the files are next counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self) -> int:
        """Count the files; returns the bytes they take."""
        with self._sum() as (file, _):
            total = sum(found.size for found in self._files())
            _write(file, total)
        return total

    def allot(self, part: BinaryIO, size: int, limit: int) -> bool:
        """Give an empty file its size, evicting what was not used for longest; False if there cannot be room."""
        if size > limit:
            return False
        with self._sum() as (file, total):
            if total + size > limit:
                total = self._evict(limit - max(size, limit // ROOM))
            fits = total + size <= limit
            _write(file, total + size * fits)  # first: killed in between, the sum would be too small
            if fits:
                part.truncate(size)  # so that whoever counts the files counts what is to come
        return fits

    def evict(self, size: int) -> None:
        """Make so many bytes free, or as many as can be."""
        with self._sum() as (file, total):
            _write(file, self._evict(max(0, total - size)))

    def _evict(self, down_to: int) -> int:
        files = sorted(self._files())
        total = sum(file.size for file in files)
        for file in files:
            if total <= down_to:
                break
            if _remove(file.path):
                total -= file.size
        return total

    def _files(self) -> Iterator[_File]:
        for shard in os.scandir(self._folder):
            if shard.is_dir(follow_symlinks=False):
                for entry in os.scandir(shard):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield _File(found.st_mtime, found.st_size, entry.path)

    @contextmanager
    def _sum(self) -> Iterator[tuple[BinaryIO, int]]:
        path = self._folder / "usage"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                written = file.read()
                total = int(written) if written.isdigit() else sum(found.size for found in self._files())
                yield file, total
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def _write(file: BinaryIO, total: int) -> None:
    file.seek(0)
    file.write(b"%020d" % total)  # as long as ever, in the place it has: a full disk does not refuse that


def _remove(path: str) -> bool:
    """Whether it is gone. A download under way stays; one that was killed has left no lock."""
    try:
        if not path.endswith(".part"):
            os.unlink(path)
            return True
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)  # whoever waits for the lock will see that the name is gone, and begin anew
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True
