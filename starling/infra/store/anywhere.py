"""Where a dataset may live: a store, or whatever else fsspec can reach (gs://, abfs://, memory://, ...)."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from starling.infra.errors import (
    ObjectExists,
    ObjectNotFound,
    StarlingError,
    StoreAccessDenied,
    StoreError,
    StoreUnavailable,
    UsageError,
    VersionConflict,
)
from starling.infra.store.base import ObjectInfo, Versioned
from starling.infra.store.checksums import corrupt, sha256_of
from starling.infra.store.keys import check_key
from starling.infra.store.opening import open_store
from starling.infra.store.oserrors import MEANING
from starling.infra.store.writing import aside

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OWN_SCHEMES = ("", "file", "s3")
"""What our own stores serve."""

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")


class Storage(Protocol):
    """The part of `Store` that datasets need; see there for what each method promises."""

    @property
    def uri(self) -> str: ...
    def get(self, key: str) -> Versioned: ...
    def create(self, key: str, data: bytes) -> str: ...
    def replace(self, key: str, data: bytes, version: str) -> str: ...
    def put(self, key: str, data: bytes) -> str: ...
    def delete(self, key: str) -> None: ...
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]: ...
    def stat(self, key: str) -> ObjectInfo: ...
    def upload(self, path: Path, key: str) -> str: ...
    def download(self, key: str, path: Path, sha256: str | None = None) -> None: ...
    def read_range(self, key: str, offset: int, length: int) -> bytes: ...


def open_storage(uri: str) -> Storage:
    """Open a folder, s3://, or any other URI that fsspec knows. Raises UsageError if none of them can be had."""
    scheme = uri.partition("://")[0] if "://" in uri else ""
    return open_store(uri) if scheme in OWN_SCHEMES else FsspecStorage(uri)


class FsspecStorage:
    """Objects below a URI of fsspec.

    Most of these places have no conditional writes: `create` and `replace` look first and then write, so of two
    writers at the same moment the later one wins. A version is the content's SHA-256. Whether a reader can see half
    an object is up to the place; object stores show it whole or not at all.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._fs, self._root = filesystem(self._uri)

    @property
    def uri(self) -> str:
        return self._uri

    def get(self, key: str) -> Versioned:
        with fsspec_errors_named("read", self._name(key)):
            data: bytes = self._fs.cat_file(self._path(key))
        return Versioned(data=data, version=_version(data))

    def create(self, key: str, data: bytes) -> str:
        try:
            self.stat(key)
        except ObjectNotFound:
            return self.put(key, data)
        raise ObjectExists(f"{self._name(key)} exists already")

    def replace(self, key: str, data: bytes, version: str) -> str:
        try:
            found = self.get(key).version
        except ObjectNotFound:
            found = None
        if found != version:
            raise VersionConflict(f"{self._name(key)} was changed by another writer since it was read")
        return self.put(key, data)

    def put(self, key: str, data: bytes) -> str:
        with fsspec_errors_named("write", self._name(key)):
            self._make_folder(key)
            self._fs.pipe_file(self._path(key), data)
        return _version(data)

    def delete(self, key: str) -> None:
        with fsspec_errors_named("delete", self._name(key)):
            if self._fs.exists(self._path(key)):
                self._fs.rm_file(self._path(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with fsspec_errors_named("list", self._name(prefix)):
            folder = posixpath.join(self._root, posixpath.dirname(prefix))
            found: dict[str, dict[str, Any]] = self._fs.find(folder, detail=True) if self._fs.exists(folder) else {}
        infos = [self._info(path[len(self._root) :].lstrip("/"), entry) for path, entry in found.items()]
        return iter(sorted((info for info in infos if info.key.startswith(prefix)), key=lambda info: info.key))

    def stat(self, key: str) -> ObjectInfo:
        with fsspec_errors_named("look at", self._name(key)):
            return self._info(key, self._fs.info(self._path(key)))

    def upload(self, path: Path, key: str) -> str:
        with fsspec_errors_named(f"copy {path} to", self._name(key)):
            self._make_folder(key)
            self._fs.put_file(str(path), self._path(key))
        return sha256_of(path)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        with fsspec_errors_named(f"copy to {path}:", self._name(key)), aside(path) as fresh:
            self._fs.get_file(self._path(key), str(fresh))
            if sha256 is not None and (found := sha256_of(fresh)) != sha256:
                raise corrupt(self._name(key), sha256, found)
            fresh.replace(path)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with fsspec_errors_named("read", self._name(key)):
            data: bytes = self._fs.cat_file(self._path(key), start=offset, end=offset + length)
        return data

    def _path(self, key: str) -> str:
        return posixpath.join(self._root, check_key(key))

    def _name(self, key: str) -> str:
        return f"{self._uri}/{key}"

    def _make_folder(self, key: str) -> None:
        self._fs.makedirs(posixpath.dirname(self._path(key)), exist_ok=True)

    def _info(self, key: str, entry: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(key=key, size=int(entry["size"] or 0), modified_at=0.0, tag=stamp_of(entry))


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for a URI, and the path in it. UsageError names what is missing or misspelt."""
    scheme = uri.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs the package fsspec, which is not installed: pip install fsspec") from error
    try:
        with fsspec_errors_named("open", uri):
            fs, path = url_to_fs(uri)
    except ImportError as error:  # fsspec's message names the package
        raise UsageError(f"{uri}: {scheme}:// needs another package: {error}") from error
    except ValueError as error:
        raise UsageError(f"{uri}: {error}; give a folder, s3://bucket/path or another URI that fsspec knows") from error
    return fs, str(path).rstrip("/")


def stamp_of(entry: dict[str, Any]) -> str:
    """What changes when a file is rewritten, as far as the place tells: etag, checksum or time of change."""
    for name in _STAMPS:
        if entry.get(name):
            return str(entry[name])
    return ""


@contextmanager
def fsspec_errors_named(doing: str, where: str) -> Iterator[None]:
    """Turn what fsspec and the packages below it raise into our errors, saying what was being done to what."""
    try:
        yield
    except (StarlingError, ImportError, ValueError):
        raise
    except FileNotFoundError as error:
        raise ObjectNotFound(f"cannot {doing} {where}: it is not there") from error
    except PermissionError as error:
        raise StoreAccessDenied(
            f"cannot {doing} {where}: {error}; check the credentials and what they may do"
        ) from error
    except OSError as error:
        kind, advice = MEANING.get(error.errno or 0, (StoreUnavailable, "check the network and try again"))
        raise kind(f"cannot {doing} {where}: {error}; {advice}") from error
    except Exception as error:  # every package has its own; none of them may reach the user as a traceback
        raise StoreError(f"cannot {doing} {where}: {type(error).__name__}: {error}") from error


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
