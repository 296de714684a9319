"""Where a folder store keeps what nobody may see yet, and its locks: a hidden folder in the store's root."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from starling.infra.clock import Clock

HIDDEN = ".starling"
"""A segment that no key can have, so nothing in here is an object."""
ABANDONED_AFTER = 3600.0
"""Seconds without a write after which a temporary file belongs to a writer that was killed, if that cannot be told."""


class Staging:
    """Temporary files on the store's own file system, so that a rename or link into place is atomic."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._clock = clock
        self._files = root / HIDDEN / "staging"
        self.locks = root / HIDDEN / "locks"
        self.checksums = root / HIDDEN / "sha256"
        self._prepared = False

    def prepare(self) -> None:
        """Make the folders and sweep once, before the first write; reading a store changes nothing. Raises OSError."""
        if not self._prepared:
            self._files.mkdir(parents=True, exist_ok=True)
            self.locks.mkdir(exist_ok=True)
            self.sweep()
            self._prepared = True

    @contextmanager
    def path(self) -> Iterator[Path]:
        """A fresh path to write to; whatever is left there at the end of the block is removed."""
        self.prepare()
        path = self._files / f"{os.getpid()}-{_realm()}-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def holding(self, data: bytes, *, sync: bool) -> Iterator[Path]:
        """A fresh path with `data` in it, on the disk if `sync`."""
        with self.path() as path:
            with path.open("xb") as file:
                file.write(data)
                finish(file, self._clock, sync=sync)
            yield path

    def sweep(self) -> None:
        """Remove what killed writers left behind. Raises OSError."""
        oldest = self._clock.now() - ABANDONED_AFTER
        with os.scandir(self._files) as entries:
            for entry in entries:
                try:
                    if entry.stat().st_mtime < oldest or _is_orphan(entry.name):
                        os.unlink(entry.path)
                except FileNotFoundError:
                    continue  # its writer finished, or another sweep was faster


@functools.cache
def _realm() -> str:
    """Names the set of processes among which a pid means something: this boot of this kernel, and the pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return ""  # not Linux: abandoned files are told by their age alone


def _is_orphan(name: str) -> bool:
    """Whether the writer of a staged file is known to be dead; of one on another machine nothing is known."""
    pid, _, rest = name.partition("-")
    if not _realm() or rest.partition("-")[0] != _realm() or not pid.isdigit():
        return False
    return not Path(f"/proc/{pid}").exists()


def finish(file: BinaryIO, clock: Clock, *, sync: bool) -> None:
    """Stamp a written file and, if asked, put it on the disk.

    The kernel's own stamps are as coarse as its tick (4 ms): two rewrites within one tick could carry the same stamp,
    and then the same tag.
    """
    file.flush()
    stamp = int(clock.now() * 1e9)
    os.utime(file.fileno(), ns=(stamp, stamp))
    if sync:
        os.fsync(file.fileno())
