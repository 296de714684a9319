"""Writes shards: plain tar files whose bytes depend on nothing but the names and contents put into them."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self


class ShardWriter:
    """One shard file being written. Tells the offset of everything it takes, which tarfile's own writer does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file = path.open("wb")
        self._hash = hashlib.sha256()

    def size_with(self, name: str, data: bytes) -> int:
        """Size of the finished file if this member were added and no other."""
        padded = len(_header(name, data)) + len(data) + -len(data) % tarfile.BLOCKSIZE
        end = self.size + padded + 2 * tarfile.BLOCKSIZE
        return end + -end % tarfile.RECORDSIZE

    def add(self, name: str, data: bytes) -> int:
        """Append a member; return the offset of its first byte."""
        self._write(_header(name, data))
        offset = self.size
        self._write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def finish(self) -> str:
        """Close the archive; return the file's SHA-256 (hex)."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))
        self._file.close()
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)


def _header(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # mode 0644, owner 0, time 0: no trace of who prepared it, or when
    info.size = len(data)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
