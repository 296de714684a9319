"""Makes a folder equal to a snapshot: aside, verified, and renamed into place as a whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from starling.infra.errors import NoRoom, ObjectCorrupt, ObjectNotFound, StoreUnavailable
from starling.infra.snapshots.catalog import Catalog
from starling.infra.snapshots.content import KnownFiles
from starling.infra.snapshots.listing import Listing, look
from starling.infra.snapshots.records import Snapshot, SnapshotFile
from starling.infra.store.checksums import sha256_of

_DOWNLOADS = 8
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DamagedFiles(ObjectCorrupt):
    """Files of a snapshot that this reader could not get as they were written, though it tried twice."""

    def __init__(self, message: str, sha256s: frozenset[str]) -> None:
        super().__init__(message)
        self.sha256s = sha256s


def restore(catalog: Catalog, snapshot: Snapshot, folder: Path, aside: Path, known: KnownFiles | None = None) -> int:
    """Make `folder` hold exactly what the snapshot holds; return how many bytes were downloaded for that.

    `aside` is scratch space on the same file system. Files that the folder holds already are taken over, after their
    hash was checked (or is `known` to be right); the others are downloaded and verified. Raises DamagedFiles, NoRoom
    if this machine's disk is full, StoreError, OSError; `folder` is as before then.
    """
    known = known or KnownFiles()
    with _full_disk_named(folder):
        return _restore(catalog, snapshot, folder, aside, known)


def _restore(catalog: Catalog, snapshot: Snapshot, folder: Path, aside: Path, known: KnownFiles) -> int:
    present = look(folder)
    held = _held_already(folder, snapshot, present, known)
    downloaded = 0
    if not _is_equal(snapshot, present, held):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            downloaded = _build(catalog, snapshot, folder, held, aside / "fresh")
            swap(folder, aside / "fresh", aside / "old")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    known.learn(snapshot.files, look(folder))
    return downloaded


def swap(folder: Path, fresh: Path, old: Path) -> None:
    """Put `fresh` in the place of `folder`, which becomes `old`."""
    if folder.exists():
        folder.rename(old)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Restoring only reads the store: a disk that is full is this machine's, however the store names it."""
    try:
        yield
    except (StoreUnavailable, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise NoRoom(f"{folder} cannot hold the snapshot: {cause.strerror}; free some space there") from error
        raise


def _held_already(folder: Path, snapshot: Snapshot, present: Listing, known: KnownFiles) -> set[str]:
    """Paths of files that the folder holds just as the snapshot does; their bytes are checked."""
    held = set()
    for file in snapshot.files:
        stamp = present.files.get(file.path)
        if stamp is None or stamp.size != file.size:
            continue
        if (known.sha256(file.path, stamp) or sha256_of(folder / file.path)) == file.sha256:
            held.add(file.path)
    return held


def _is_equal(snapshot: Snapshot, present: Listing, held: set[str]) -> bool:
    modes = {file.path: file.mode for file in snapshot.files}
    return (
        held == set(modes)
        and {path: stamp.mode for path, stamp in present.files.items()} == modes
        and present.links == snapshot.links
        and {path: stamp.mode for path, stamp in present.folders.items()} == snapshot.folders
        and not present.left_out
    )


def _build(catalog: Catalog, snapshot: Snapshot, old: Path, held: set[str], fresh: Path) -> int:
    """The snapshot's content in a new folder. Held files get a second name there, which costs nothing: the old folder
    is removed with its names as soon as the new one is in its place."""
    fresh.mkdir()
    for path in {*snapshot.folders, *(os.path.dirname(path) for path in _paths(snapshot))}:
        (fresh / path).mkdir(parents=True, exist_ok=True)
    sources: dict[str, Path] = {}
    for file in snapshot.files:
        if file.path in held:
            os.link(old / file.path, fresh / file.path)
            sources[file.sha256] = fresh / file.path
    wanted = {file.sha256: file for file in snapshot.files if file.sha256 not in sources}
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        complaints = list(pool.map(lambda file: _download(catalog, file, fresh / file.path), wanted.values()))
    damaged = {file.sha256: said for file, said in zip(wanted.values(), complaints, strict=True) if said is not None}
    if damaged:
        raise DamagedFiles("; ".join(damaged.values()), frozenset(damaged))
    sources |= {sha256: fresh / file.path for sha256, file in wanted.items()}
    for file in snapshot.files:
        if not (fresh / file.path).exists():
            shutil.copyfile(sources[file.sha256], fresh / file.path)
    for file in snapshot.files:
        (fresh / file.path).chmod(file.mode)
    for link, target in snapshot.links.items():
        os.symlink(target, fresh / link)
    for path in sorted(snapshot.folders, reverse=True):  # inner ones first: an outer one may forbid writing
        (fresh / path).chmod(snapshot.folders[path])
    return sum(file.size for file in wanted.values())


def _paths(snapshot: Snapshot) -> list[str]:
    return [*(file.path for file in snapshot.files), *snapshot.links]


def _download(catalog: Catalog, file: SnapshotFile, path: Path) -> str | None:
    """What is wrong with the file, if something is: all are named at once, so that all can be mended at once."""
    try:
        try:
            catalog.download(file.sha256, path)
        except ObjectCorrupt:
            catalog.download(file.sha256, path)  # perhaps it was the way here that did the damage
    except (ObjectCorrupt, ObjectNotFound) as error:
        return f"{file.path}: {error}"
    return None
