"""The node's own copies of chunks: shared by all its processes, bounded, kept between rounds.

A chunk lies in `<folder>/<sha256 of its shard>/<first byte>-<end>`, so one cache serves any number of datasets. Whoever
needs one first downloads it into `<...>.part`, under a lock on that file, and renames it when it is whole. The kernel
drops the lock with its holder, so a killed download blocks nobody, and the next one begins that file anew. Nothing is
synced to the disk: after a power cut a chunk may hold rubbish, which readers find by the checksum of every sample.

A file is never changed once it has its final name, and eviction removes names only: who has a chunk mapped goes on
reading it, and its room is free only then. An eighth of the cache is kept for that.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from starling.infra.store.streaming import Take
from starling.trainer.data.chunks import Chunk
from starling.trainer.data.usage import Usage

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk says on which nothing can be kept."""
FOR_EVICTED = 8
"""One part of the limit in so many is not for files, but for what is mapped though it is evicted."""

Stream = Callable[[Take], None]
"""Hands a chunk's bytes to a function, from the first to the last. Raises the store's errors."""


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk that can be read for as long as this exists."""

    data: memoryview
    inode: int | None
    """Of the file it is mapped from; None if it is in memory only."""


class ChunkCache:
    """`limit` bounds the bytes on the disk of all chunks, whole or under way, also of evicted ones as long as processes
    keep no more than `mapped_limit` mapped; None: half of what the disk could give them.

    If nothing can be written there, the limit is 0, which is logged. Raises OSError for another trouble with the disk.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        self._usage = Usage(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = self._usage.count()
            self.limit = (shutil.disk_usage(folder).free + there) // 2 if limit is None else limit
        except OSError as error:
            if error.errno not in FULL:
                raise
            log.warning("there can be no cache in %s (%s): data is read without it", folder, error.strerror)
            self.limit = 0
        self.mapped_limit = self.limit // FOR_EVICTED
        """Bytes that all processes of the node together may keep mapped."""

    def find(self, chunk: Chunk) -> Held | None:
        """The chunk if it is here. A copy of another size is none."""
        if chunk.size == 0:
            return Held(memoryview(b""), None)
        try:
            with (self._folder / chunk.name).open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_size != chunk.size:
                    return None
                with suppress(OSError):  # the time of its last use is for eviction only
                    os.utime(file.fileno())
                mapped = mmap.mmap(file.fileno(), chunk.size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            return None
        return Held(memoryview(mapped), found.st_ino)

    def fetch(self, chunk: Chunk, stream: Stream, *, instead_of: Held | None = None) -> Held:
        """The chunk, downloaded if it is not here, or is still the damaged `instead_of`.

        One process of the node downloads it while the others wait. If the disk is full, or the bound too narrow, it is
        read into memory and not kept. Raises the store's errors, and OSError for another trouble with the disk.
        """
        if self.limit == 0:
            held = self.find(chunk)
            return held if held and not _same(held, instead_of) else _in_memory(stream)
        try:
            if held := self._fetched(chunk, stream, instead_of):
                return held
        except OSError as error:
            if error.errno not in FULL:
                raise
        log.warning("no room for %d bytes in the cache %s: read without it", chunk.size, self._folder)
        return _in_memory(stream)

    def _fetched(self, chunk: Chunk, stream: Stream, instead_of: Held | None) -> Held | None:
        path = self._folder / chunk.name
        aside = path.with_name(path.name + ".part")
        while True:
            if (held := self.find(chunk)) and not _same(held, instead_of):
                return held
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(aside) as part:
                if not _is(part, aside):
                    continue  # another process has just finished with it
                if (held := self.find(chunk)) and not _same(held, instead_of):
                    aside.unlink()
                    return held
                try:
                    kept = self._written(part, chunk, stream)
                except BaseException:
                    aside.unlink()
                    raise
                if not kept:
                    aside.unlink()
                    return None
                aside.replace(path)
            return self.find(chunk)  # None if it was evicted already

    def _written(self, part: BinaryIO, chunk: Chunk, stream: Stream) -> bool:
        """Only under the lock. Whether there was room for it. Raises the store's errors."""
        for _ in range(2):
            if os.fstat(part.fileno()).st_size:  # else ext4 would write it to the disk when it is closed
                part.truncate(0)
            if not self._usage.allot(part, chunk.size, self.limit - self.mapped_limit):
                return False
            part.seek(0)
            try:
                stream(lambda piece: _write(part, piece))
            except _CannotWriteError as error:
                if error.reason.errno not in FULL:
                    raise error.reason from None
                self._usage.evict(4 * chunk.size)  # others fill the disk, too
            else:
                return True
        return False


class _CannotWriteError(Exception):
    """Not an OSError, lest the store take it for one of its connection's."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _write(file: BinaryIO, piece: memoryview) -> None:
    while len(piece):
        try:
            piece = piece[file.write(piece) :]
        except OSError as error:
            raise _CannotWriteError(error) from error


def _in_memory(stream: Stream) -> Held:
    data = bytearray()
    stream(data.extend)
    return Held(memoryview(data), None)


def _same(held: Held, other: Held | None) -> bool:
    # No other file gets its number while we have it mapped.
    return other is not None and other.inode is not None and held.inode == other.inode


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open the file, creating it if need be, and hold its lock."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would not, had the process forked meanwhile


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
