"""The node's own copies of shards, shared by all its processes and kept between rounds.

A shard lies in `<folder>/<sha256>.tar`, so one cache serves any number of datasets. Whoever needs a shard first
downloads it under a file lock; the kernel drops the lock with its holder, so a killed download blocks nobody, and
the next one clears away what it left. A file with the final name has had its hash verified and was synced to disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from starling.trainer.data.index import DatasetPlace, Shard

DOWNLOADS_AT_ONCE = 4


def fetch_shard(place: DatasetPlace, shard: Shard, folder: Path) -> Path:
    """Path of the node's copy of a shard, downloaded if need be. Raises the store's errors."""
    path = folder / f"{shard.sha256}.tar"
    if not _complete(path, shard):
        with _locked(path):
            if not _complete(path, shard):
                _download(place, shard, path)
    return path


def refetch_shard(place: DatasetPlace, shard: Shard, folder: Path) -> Path:
    """Like `fetch_shard`, for a copy that was found damaged: kept only if its hash is right after all.

    (Another process may have found and mended the damage meanwhile.)
    """
    path = folder / f"{shard.sha256}.tar"
    with _locked(path):
        if not _complete(path, shard) or _sha256(path) != shard.sha256:
            _download(place, shard, path)
    return path


def fetch_shards(place: DatasetPlace, shards: list[Shard], folder: Path) -> list[Path]:
    """All of them, several at a time."""
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="shard-download") as pool:
        return list(pool.map(lambda shard: fetch_shard(place, shard, folder), shards))


def _complete(path: Path, shard: Shard) -> bool:
    try:
        return path.stat().st_size == shard.size
    except FileNotFoundError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold this shard's lock. Lock files stay: removing one would let two processes lock different files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would not, had the process forked meanwhile


def _download(place: DatasetPlace, shard: Shard, path: Path) -> None:
    """Only under the lock. The store writes into a folder of our own, so that nothing a kill leaves is ever lost."""
    aside = path.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    part = aside / "shard.tar"
    place.store.download(place.shard_key(shard), part, sha256=shard.sha256)
    _sync(part)
    part.replace(path)
    aside.rmdir()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
