"""A store that counts what is asked of it and takes as long to answer as one across a network; and one in memory."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starling.infra.errors import ObjectExists, ObjectNotFound, VersionConflict
from starling.infra.store import ObjectInfo, Store, Versioned


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """How often what was asked."""

    get: int = 0
    put: int = 0
    """Conditional ones too, won or lost."""
    list: int = 0
    delete: int = 0
    conflicts: int = 0
    """Conditional writes that lost."""

    @property
    def total(self) -> int:
        return self.get + self.put + self.list + self.delete


class CountingStore:
    """Passes everything on; `latency` is the mean of what every call takes beyond that, in seconds."""

    def __init__(self, store: Store, latency: float = 0.0) -> None:
        self._store = store
        self._latency = latency
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self) -> Calls:
        """What was asked since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return Calls(**counts)

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> Versioned:
        with self._counted("get"):
            return self._store.get(key)

    def put(self, key: str, data: bytes) -> str:
        with self._counted("put"):
            return self._store.put(key, data)

    def create(self, key: str, data: bytes) -> str:
        with self._counted("put"):
            return self._store.create(key, data)

    def replace(self, key: str, data: bytes, version: str) -> str:
        with self._counted("put"):
            return self._store.replace(key, data, version)

    def delete(self, key: str) -> None:
        with self._counted("delete"):
            self._store.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._counted("list"):
            return self._store.list(prefix)

    def stat(self, key: str) -> ObjectInfo:
        with self._counted("list"):  # which is what it is on S3
            return self._store.stat(key)

    def upload(self, path: Path, key: str) -> str:
        with self._counted("put"):
            return self._store.upload(path, key)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self._counted("get"):
            self._store.download(key, path, sha256)

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        with self._counted("put"):
            return self._store.upload_memory(pieces, key)

    def download_memory(self, key: str, target: memoryview) -> None:
        with self._counted("get"):
            self._store.download_memory(key, target)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._counted("get"):
            return self._store.read_range(key, offset, length)

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        if self._latency:
            time.sleep(random.uniform(0.5, 1.5) * self._latency)
        self._count(kind)
        try:
            yield
        except (ObjectExists, VersionConflict):
            self._count("conflicts")
            raise

    def _count(self, kind: str) -> None:
        with self._lock:
            self._counts[kind] += 1


class MemoryStore:
    """Small objects in a dictionary: what a bucket does, without a server whose cores the measurement would share."""

    uri = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Versioned:
        data = self._objects.get(key)
        if data is None:
            raise ObjectNotFound(key)
        return Versioned(data=data, version=_version(data))

    def put(self, key: str, data: bytes) -> str:
        self._objects[key] = data
        return _version(data)

    def create(self, key: str, data: bytes) -> str:
        with self._lock:
            if key in self._objects:
                raise ObjectExists(key)
            return self.put(key, data)

    def replace(self, key: str, data: bytes, version: str) -> str:
        with self._lock:
            if key not in self._objects or _version(self._objects[key]) != version:
                raise VersionConflict(key)
            return self.put(key, data)

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = sorted((key, data) for key, data in list(self._objects.items()) if key.startswith(prefix))
        return (ObjectInfo(key=k, size=len(d), modified_at=0.0, tag=_version(d)) for k, d in found)

    def stat(self, key: str) -> ObjectInfo:
        data = self.get(key).data
        return ObjectInfo(key=key, size=len(data), modified_at=0.0, tag=_version(data))

    def upload(self, path: Path, key: str) -> str:
        return self.upload_memory([memoryview(path.read_bytes())], key)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        path.write_bytes(self.get(key).data)

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        data = b"".join(pieces)
        self.put(key, data)
        return hashlib.sha256(data).hexdigest()

    def download_memory(self, key: str, target: memoryview) -> None:
        target[:] = self.get(key).data

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key).data[offset : offset + length]


def _version(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
