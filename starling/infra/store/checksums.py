"""SHA-256 of files, in constant memory."""

from __future__ import annotations

import hashlib
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


def corrupt(where: str, expected: str, found: str) -> ObjectCorrupt:
    """The error for bytes that are not the ones that were written."""
    return ObjectCorrupt(
        f"{where} is damaged: its SHA-256 is {found}, but {expected} was written; "
        "use another copy (for a checkpoint: an earlier step) and check the storage underneath"
    )
