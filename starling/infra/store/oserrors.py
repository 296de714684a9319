"""What the operating system's errors mean to a caller of a store: one table."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starling.infra.errors import StoreAccessDenied, StoreError, StoreUnavailable

_BELOW = "no key can lie below another: `a` and `a/b` exclude each other, because one file cannot also be a folder"

MEANING: dict[int, tuple[type[StoreError], str]] = {
    errno.EACCES: (StoreAccessDenied, "check who owns it and its permissions"),
    errno.EPERM: (StoreAccessDenied, "check its permissions, and that its file system has hard links"),
    errno.EROFS: (StoreAccessDenied, "the file system is mounted read-only: choose another folder"),
    errno.ENOSPC: (StoreUnavailable, "free some space there"),
    errno.EDQUOT: (StoreUnavailable, "free some space there, or have the quota raised"),
    errno.EFBIG: (StoreUnavailable, "the file is larger than the file system or `ulimit -f` allows"),
    errno.EIO: (StoreUnavailable, "the disk or network file system under it is failing"),
    errno.ESTALE: (StoreUnavailable, "the network file system was exported anew: mount it again"),
    errno.ETIMEDOUT: (StoreUnavailable, "the network file system does not answer"),
    errno.ENOLCK: (StoreUnavailable, "the file system grants no locks: check the NFS lock service"),
    errno.EMFILE: (StoreUnavailable, "this process has too many files open: raise `ulimit -n`"),
    errno.ENFILE: (StoreUnavailable, "this machine has too many files open"),
    errno.ENOENT: (StoreUnavailable, "it is not there, or its folder was removed meanwhile"),
    errno.ENOTDIR: (StoreError, _BELOW),
    errno.EEXIST: (StoreError, _BELOW),  # from mkdir; a lost race for an object is ObjectExists before it gets here
    errno.EISDIR: (StoreError, _BELOW),
    errno.ENAMETOOLONG: (StoreError, "the path is too long for this file system: choose a shorter store folder"),
}
"""errno -> (what the caller gets, what the user should check). Anything else becomes a plain StoreError."""


@contextmanager
def os_errors_named(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into our error that says what was being done (`doing`, like "write") to which path."""
    try:
        yield
    except OSError as error:
        raise store_error(doing, path, error) from error


def store_error(doing: str, path: Path, error: OSError) -> StoreError:
    """The error to raise in place of `error`."""
    kind, advice = MEANING.get(error.errno or 0, (StoreError, "this error is unknown to the store"))
    reason = error.strerror or (os.strerror(error.errno) if error.errno else repr(error))
    return kind(f"cannot {doing} {path}: {reason}; {advice}")
