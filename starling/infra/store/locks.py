"""Locks between processes and threads, on files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starling.infra.clock import Clock
from starling.infra.errors import StoreUnavailable

LOCK_FILES = 64
"""Few, so that they are never removed (a removed lock file lets two in), and enough to rarely meet a stranger."""

_LONGEST_PAUSE = 0.005


@contextmanager
def locked(folder: Path, key: str, clock: Clock, patience: float) -> Iterator[None]:
    """Hold the lock of `key` (and of all keys that share its lock file). The kernel releases it if the process dies.

    Tries for `patience` seconds rather than waiting in the kernel: a stopped process (SIGSTOP, a suspended machine)
    must not hang everybody for ever. Raises StoreUnavailable, OSError.
    """
    path = folder / f"{hashlib.sha256(key.encode()).digest()[0] % LOCK_FILES:02d}"
    # Every open file description locks for itself, so threads of one process exclude each other too.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _acquire(descriptor, path, clock, patience)
        try:
            yield
        finally:
            # Closing alone would not do: a child forked meanwhile has a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, clock: Clock, patience: float) -> None:
    give_up_at = clock.now() + patience
    pause = 0.0002
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock.now() >= give_up_at:
                raise StoreUnavailable(
                    f"lock {path} was held by another process for {patience:.0f} s: look for a stopped process "
                    "that uses this store, or a network file system whose lock service hangs"
                ) from None
        clock.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, _LONGEST_PAUSE)
