"""A store in a folder, on a local disk or a network file system."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ObjectExists, ObjectNotFound, StoreUnavailable, VersionConflict
from starling.infra.store.base import ObjectInfo, Versioned
from starling.infra.store.checksums import copy_hashed, corrupt, write_hashed, wrong_size
from starling.infra.store.keys import check_key, check_prefix
from starling.infra.store.locks import locked
from starling.infra.store.oserrors import os_errors_named
from starling.infra.store.staging import Staging, finish
from starling.infra.store.walking import info, objects_below
from starling.infra.store.writing import aside, sync_folders

LOCK_PATIENCE = 60.0
"""Seconds to wait for another writer of the same key; writers hold the lock for well under a millisecond."""

_REWRITES = 5
"""How often a download starts again because the object was rewritten under it."""


class FolderStore:
    """Objects are plain files under `root`; a key is the file's relative path.

    How the store's guarantees are kept:

    * Content is written to a hidden staging folder and renamed (or, for `create`, hard-linked) into place, so it is
      visible whole or not at all. A link fails if the name is taken: one winner, even where locks do not work.
    * A version is the content's SHA-256. `replace` compares and renames under a `flock` on one of a fixed set of
      lock files; every other writer takes that lock too. The kernel releases it when its holder dies, and on NFS it
      holds between machines.
    * After a power cut: what decides anything (`create`, `replace`, `upload`) is on the disk before it becomes
      visible, so it is found whole; after `create` and `upload`, the commits and what they commit, its name is on
      the disk too. `put` waits for no disk: status, events and logs are written every few seconds and must not
      queue up behind a checkpoint that goes to the same disk. The newest of them may be lost or empty then.
    * `upload` records a checksum aside (hidden); any later write to the key removes it.

    The folder is made by the first write. `modified_at` is by the clock of the machine that wrote, which on a network
    file system need not be this one. A key cannot lie below another key here (`a` and `a/b`).
    """

    def __init__(self, root: Path, *, clock: Clock | None = None, lock_patience: float = LOCK_PATIENCE) -> None:
        self._root = Path(os.path.abspath(root.expanduser()))
        self._clock = clock or SystemClock()
        self._lock_patience = lock_patience
        self._staging = Staging(self._root, self._clock)

    @property
    def uri(self) -> str:
        return str(self._root)

    def get(self, key: str) -> Versioned:
        path = self._path(key)
        with os_errors_named("read", path), self._open(key, path) as file:
            data = file.read()
        return Versioned(data=data, version=_version(data))

    def put(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with os_errors_named("write", path), self._staging.holding(data, sync=False) as staged, self._locked(key):
            self._move(staged, key, path)
        return _version(data)

    def create(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with os_errors_named("write", path):
            self._refuse_existing(key, path)  # before paying for the disk: most losers come late
            with self._staging.holding(data, sync=True) as staged, self._locked(key):
                self._refuse_existing(key, path)
                self._recorded(key).unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._link(staged, key, path)
            sync_folders(path.parent, self._root)
        return _version(data)

    def replace(self, key: str, data: bytes, version: str) -> str:
        path = self._path(key)
        with os_errors_named("write", path):
            self._require_version(key, path, version)  # before paying for the disk
            with self._staging.holding(data, sync=True) as staged, self._locked(key):
                self._require_version(key, path, version)
                self._move(staged, key, path)
        return _version(data)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with os_errors_named("delete", path):
            if not path.is_file():
                return
            self._staging.prepare()
            with self._locked(key):
                self._recorded(key).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, slash, beginning = check_prefix(prefix).rpartition("/")
        return objects_below(self._root, folder + slash, beginning)

    def stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with os_errors_named("look at", path):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise self._not_found(key) from None
        if not stat.S_ISREG(found.st_mode):
            raise self._not_found(key)
        return info(key, found)

    def upload(self, path: Path, key: str) -> str:
        with os_errors_named("read", path), path.open("rb") as source:
            return self._upload(key, f"copy {path} to", lambda copy: copy_hashed(source, copy))

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        return self._upload(key, "write", lambda copy: write_hashed(pieces, copy))

    def _upload(self, key: str, doing: str, write: Callable[[BinaryIO], str]) -> str:
        target = self._path(key)
        with os_errors_named(doing, target), self._staging.path() as staged:
            with staged.open("xb") as copy:
                digest = write(copy)
                finish(copy, self._clock, sync=True)
            recorded = self._recorded(key)
            with self._staging.holding(digest.encode(), sync=False) as note, self._locked(key):
                self._move(staged, key, target)
                recorded.parent.mkdir(parents=True, exist_ok=True)
                note.replace(recorded)
            sync_folders(target.parent, self._root)
        return digest

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        source = self._path(key)
        for _ in range(_REWRITES):
            with os_errors_named(f"copy {source} to", path):
                if self._copied(key, source, path, sha256):
                    return
        raise StoreUnavailable(f"{source} was rewritten again and again while it was being copied to {path}")

    def download_memory(self, key: str, target: memoryview) -> None:
        path = self._path(key)
        with os_errors_named("read", path), self._open(key, path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != len(target):
                raise wrong_size(str(path), len(target), size)
            if (count := file.readinto(target)) != size:  # type: ignore[attr-defined]  # files opened by us know it
                raise wrong_size(str(path), size, count)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        path = self._path(key)
        with os_errors_named("read", path), self._open(key, path) as file:
            file.seek(offset)
            return file.read(length)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _recorded(self, key: str) -> Path:
        return self._staging.checksums / key

    def _locked(self, key: str) -> AbstractContextManager[None]:
        return locked(self._staging.locks, key, self._clock, self._lock_patience)

    def _open(self, key: str, path: Path) -> BinaryIO:
        try:
            return path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._not_found(key) from None

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"there is no {key} in the store {self._root}")

    def _refuse_existing(self, key: str, path: Path) -> None:
        if path.is_file():
            raise ObjectExists(f"{key} exists already in the store {self._root}")

    def _require_version(self, key: str, path: Path, version: str) -> None:
        try:
            with self._open(key, path) as file:
                current = _version(file.read())
        except ObjectNotFound:
            current = None
        if current != version:
            raise VersionConflict(f"{key} in the store {self._root} was changed by another writer since it was read")

    def _move(self, staged: Path, key: str, path: Path) -> None:
        self._recorded(key).unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)

    def _link(self, staged: Path, key: str, path: Path) -> None:
        try:
            os.link(staged, path)
        except FileExistsError:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            # NFS may repeat a link whose answer was lost and then report our own success as a failure.
            if staged.stat().st_nlink != 2:
                raise ObjectExists(f"{key} exists already in the store {self._root}") from None

    def _copied(self, key: str, source: Path, path: Path, sha256: str | None) -> bool:
        """Copy and verify; False if the object was rewritten meanwhile, so that its checksum proves nothing."""
        with self._open(key, source) as file, aside(path) as fresh:
            with fresh.open("xb") as copy:
                found = copy_hashed(file, copy)
            expected = sha256 or self._recorded_checksum(key)
            if expected in (None, found):
                fresh.replace(path)
                return True
            # No other file gets its inode while we hold it open, and a checksum is recorded only after its object.
            unchanged = self._inode(source) == os.fstat(file.fileno()).st_ino
        if unchanged:
            raise corrupt(str(source), expected, found)
        return False

    def _recorded_checksum(self, key: str) -> str | None:
        try:
            return self._recorded(key).read_text()
        except FileNotFoundError:
            return None

    def _inode(self, path: Path) -> int | None:
        try:
            return path.stat().st_ino
        except FileNotFoundError:
            return None


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
