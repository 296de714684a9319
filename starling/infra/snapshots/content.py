"""Reads a folder for a snapshot: every file hashed, and copied aside if the folder may change meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from starling.infra.snapshots.listing import Listing, Stamp, is_log
from starling.infra.snapshots.records import SnapshotFile

_CHUNK = 4 << 20


class Disturbed(Exception):
    """The folder changed while it was read, or reading was called off: what was read is worth nothing."""


class KnownFiles:
    """Hashes of files that have not changed since a snapshot held them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, str]] = {}

    def sha256(self, path: str, stamp: Stamp) -> str | None:
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def learn(self, files: Iterable[SnapshotFile], listing: Listing) -> None:
        """These files, as listed, are in the store."""
        self._known = {f.path: (listing.files[f.path], f.sha256) for f in files if f.path in listing.files}

    def forget(self) -> None:
        self._known.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a folder held, and where to read the files from that the store may lack."""

    files: tuple[SnapshotFile, ...]
    sources: dict[str, Path]
    """SHA-256 -> a file with that content; files known to be in the store have none."""
    listing: Listing
    digest: str
    """`Snapshot.content`."""


def read_content(
    folder: Path,
    listing: Listing,
    known: KnownFiles,
    logs: Iterable[str],
    *,
    copies: Path | None = None,
    halted: Callable[[], bool] = lambda: False,
) -> Content:
    """Hash what was listed; with `copies`, into copies in that (empty) folder, so that the folder may change later.

    Raises Disturbed if a file is not there any more, or `halted` says so; OSError.
    """
    patterns = tuple(logs)
    files, sources = [], {}
    for number, (path, stamp) in enumerate(sorted(listing.files.items())):
        sha256 = known.sha256(path, stamp)
        size = stamp.size
        if sha256 is None:
            copy = copies / str(number) if copies is not None else None
            sha256, size = _hash(folder / path, copy, halted)
            sources[sha256] = copy or folder / path
        files.append(SnapshotFile(path=path, size=size, sha256=sha256, mode=stamp.mode))
    return Content(files=tuple(files), sources=sources, listing=listing, digest=digest_of(files, listing, patterns))


def digest_of(files: Iterable[SnapshotFile], listing: Listing, logs: tuple[str, ...]) -> str:
    """One hash of all paths and contents; logs do not count: that one of them grew is no progress."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        if not is_log(file.path, logs):
            digest.update(f"{file.path}\0{file.sha256}\n".encode())
    for link, target in sorted(listing.links.items()):
        digest.update(f"{link}\0-> {target}\n".encode())
    return digest.hexdigest()


def _hash(path: Path, copy: Path | None, halted: Callable[[], bool]) -> tuple[str, int]:
    """SHA-256 and size of what was read, in one pass."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as source, (copy or Path(os.devnull)).open("wb") as target:
            while chunk := source.read(_CHUNK):
                if halted():
                    raise Disturbed("called off")
                digest.update(chunk)
                size += len(chunk)
                if copy is not None:
                    target.write(chunk)
    except FileNotFoundError as error:
        raise Disturbed(f"{path.name} is gone") from error
    return digest.hexdigest(), size
