"""The one shared memory: what every store can do, and under which guarantees.

Guarantees that every implementation keeps, and `tests/contract/store_suite.py` checks:

* An object is visible whole or not at all, and a reader sees the newest finished write.
* `create` and `replace` have exactly one winner among any number of racing writers.
* A version names content: writing the same bytes again may give the same version. Writers who must tell their
  own write from another's put a nonce into the content.
* Keys are relative POSIX paths of `[A-Za-z0-9._=-]` segments; `..`, empty and dot-leading segments are refused.
  No key lies below another (`a` and `a/b`): not every store can hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """What a listing says about an object."""

    key: str
    size: int
    """Bytes."""
    modified_at: float
    """Seconds since the epoch, by the store's clock."""
    tag: str
    """Opaque; changes whenever the object is rewritten with other content. Not usable as a version for `replace`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versioned:
    """An object's content and the version to hand back to `replace`."""

    data: bytes
    version: str


class Store(Protocol):
    """A bucket or folder. Thread-safe. Every method raises the errors of `infra.errors` and nothing vendor-specific."""

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again, anywhere."""
        ...

    def get(self, key: str) -> Versioned:
        """Read a small object whole. Raises ObjectNotFound."""
        ...

    def put(self, key: str, data: bytes) -> str:
        """Write unconditionally; return the version."""
        ...

    def create(self, key: str, data: bytes) -> str:
        """Write only if there is no such object; return the version. Raises ObjectExists.

        A retry after a lost answer that finds our own bytes there counts as success.
        """
        ...

    def replace(self, key: str, data: bytes, version: str) -> str:
        """Write only over exactly the version that was read. Raises VersionConflict (also if the object is gone)."""
        ...

    def delete(self, key: str) -> None:
        """Remove; fine if there is nothing."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (plain string prefix), in key order."""
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Like one line of `list`. Raises ObjectNotFound."""
        ...

    def upload(self, path: Path, key: str) -> str:
        """Write a file of any size, in parallel parts where that helps; return its SHA-256 (hex)."""
        ...

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Read an object of any size into `path` (written aside and renamed), in parallel ranges where that helps.

        Verifies `sha256` (else the checksum recorded at upload, if there is one). Raises ObjectNotFound, ObjectCorrupt.
        """
        ...

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        """Like `upload`: the pieces, one after the other, become one object."""
        ...

    def download_memory(self, key: str, target: memoryview) -> None:
        """Read an object of just this size into memory, in parallel ranges where that helps.

        Verifies nothing but the size, so whoever calls must. Raises ObjectNotFound, ObjectCorrupt (another size).
        """
        ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Read bytes [offset, offset + length); shorter only at the object's end. Raises ObjectNotFound."""
        ...
