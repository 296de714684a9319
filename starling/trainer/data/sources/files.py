"""The files of a source: on this machine, in S3, or wherever else fsspec can read."""

from __future__ import annotations

import functools
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starling.infra.errors import ObjectNotFound, UsageError
from starling.infra.store.anywhere import filesystem, fsspec_errors_named, stamp_of
from starling.infra.store.oserrors import store_error


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    path: str
    """Relative to the source, with slashes."""
    size: int
    """Bytes."""
    stamp: str
    """Changes when the file is rewritten: time of change or etag."""
    read: Callable[[], bytes]
    """Raises OSError on this machine and the store's errors elsewhere. Can be sent to another process."""

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def suffix(self) -> str:
        """In small letters, with its dot."""
        return posixpath.splitext(self.path)[1].lower()


@dataclass(kw_only=True, slots=True)
class Listing:
    """All files of a source, by path, but for hidden ones."""

    root: str
    files: list[SourceFile]
    ignored: Counter[str] = field(default_factory=Counter)
    """Kind -> how many were passed over."""


def list_files(source: str) -> Listing:
    """Everything below a folder or URI. UsageError if there is no such folder; the store's errors for a URI, and for a
    folder that cannot be listed."""
    if "://" not in source or source.startswith("file://"):
        return _local(Path(source.removeprefix("file://")).expanduser())
    ignored: Counter[str] = Counter()
    files = []
    for file in _remote(source):
        if any(part.startswith(".") for part in file.path.split("/")):
            ignored["hidden"] += 1
        elif not file.path.endswith("/"):  # what consoles make to show an empty folder
            files.append(file)
    return Listing(root=source, files=sorted(files, key=lambda file: file.path), ignored=ignored)


def read_anywhere(place: str) -> bytes:
    """One file, by path or URI. UsageError if it is not there."""
    try:
        if "://" not in place or place.startswith("file://"):
            return Path(place.removeprefix("file://")).expanduser().read_bytes()
        if place.startswith("s3://"):
            from starling.trainer.data.sources.s3_files import read_s3

            return read_s3(place)
        return _read_fsspec(place, filesystem(place)[1])
    except (ObjectNotFound, OSError) as error:
        raise UsageError(f"cannot read {place}: {getattr(error, 'strerror', None) or error}") from error


def _local(root: Path) -> Listing:
    if not root.is_dir():
        raise UsageError(
            f"there is no folder {root} to read images from (give a folder, a URI, digits, or rendered-fundus)"
        )
    listing = Listing(root=_text(str(root)), files=[])
    home = Path(os.path.realpath(root))
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=_unlistable):
        if (real := os.path.realpath(folder)) in seen or Path(real) in home.parents:
            listing.ignored["link to a folder that is listed elsewhere"] += 1
            below.clear()
            continue
        seen.add(real)
        listing.ignored["hidden"] += sum(name.startswith(".") for name in [*below, *names])
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            if not name.startswith("."):
                _add_local(listing, root, Path(folder, name))
    listing.files.sort(key=lambda file: file.path)
    return listing


def _unlistable(error: OSError) -> None:
    """Nobody knows what is in such a folder, so nobody could be told what is left out."""
    raise store_error("list", Path(error.filename), error) from error


def _add_local(listing: Listing, root: Path, path: Path) -> None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device might never end
            listing.ignored["no regular file"] += 1
            return
        size, modified = found.st_size, str(found.st_mtime_ns)
    except OSError:  # a link that leads nowhere: reading it says so, and the image is left out for that reason
        size, modified = 0, ""
    name = _text(path.relative_to(root).as_posix())
    listing.files.append(SourceFile(path=name, size=size, stamp=modified, read=path.read_bytes))


def _text(name: str) -> str:
    """File names are bytes; those that are no UTF-8 are spelled with escapes, so that they can stand in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _remote(source: str) -> Iterator[SourceFile]:
    if source.startswith("s3://"):
        from starling.trainer.data.sources.s3_files import list_s3  # botocore takes 0.2 s to import

        return list_s3(source)
    return _list_fsspec(source)


def _list_fsspec(source: str) -> Iterator[SourceFile]:
    fs, root = filesystem(source)
    with fsspec_errors_named("list", source):
        if not fs.isdir(root):
            raise UsageError(f"there is no folder {source} to read images from")
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    for path, entry in found.items():
        relative = path[len(root) :].lstrip("/")
        read = functools.partial(_read_fsspec, source, path)
        yield SourceFile(path=relative, size=int(entry["size"] or 0), stamp=stamp_of(entry), read=read)


def _read_fsspec(source: str, path: str) -> bytes:
    """fsspec keeps one file system for each process and set of options: asking for it again is cheap."""
    with fsspec_errors_named("read", path):
        data: bytes = filesystem(source)[0].cat_file(path)
    return data
