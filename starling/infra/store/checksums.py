"""SHA-256 of files, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from starling.infra.errors import ObjectCorrupt

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """The hex digest of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_hashed(source: BinaryIO, target: BinaryIO) -> str:
    """Copy everything and return its hex digest: one pass, so what is hashed is what was written. Raises OSError."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    while count := source.readinto(buffer):  # type: ignore[attr-defined]  # BinaryIO does not know it; open() files do
        digest.update(buffer[:count])
        target.write(buffer[:count])
    return digest.hexdigest()


def write_hashed(pieces: Iterable[memoryview], target: BinaryIO) -> str:
    """Write everything and return its hex digest. Raises OSError."""
    digest = hashlib.sha256()
    for piece in pieces:
        for offset in range(0, len(piece), _CHUNK):  # in bites that stay in the processor's cache between the two
            digest.update(piece[offset : offset + _CHUNK])
            target.write(piece[offset : offset + _CHUNK])
    return digest.hexdigest()


def wrong_size(where: str, expected: int, found: int) -> ObjectCorrupt:
    """The error for an object that is shorter or longer than what was written."""
    return ObjectCorrupt(f"{where} is damaged: it has {found} bytes, but {expected} were written")


def corrupt(where: str, expected: str, found: str) -> ObjectCorrupt:
    """The error for bytes that are not the ones that were written."""
    return ObjectCorrupt(
        f"{where} is damaged: its SHA-256 is {found}, but {expected} was written; "
        "use another copy (for a checkpoint: an earlier step) and check the storage underneath"
    )
