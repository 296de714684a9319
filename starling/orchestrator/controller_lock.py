"""One controller a run on one machine: not needed for safety, only not to waste a process."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

from starling.infra.home import starling_home

_TRIES = 5
"""`holder` takes the lock for an instant; that must not look like a controller."""
_TRY_SECONDS = 0.02


def controllers_folder() -> Path:
    """Where controllers of this machine keep their locks and logs."""
    folder = starling_home() / "controllers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class ControllerLock:
    """An flock: the kernel releases it however its holder ends."""

    def __init__(self, run: str, store_uri: str) -> None:
        # Two stores may hold runs of the same name.
        self.path = controllers_folder() / f"{run}.{hashlib.sha256(store_uri.encode()).hexdigest()[:8]}.lock"
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock if no controller has it, and leave our pid in it."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for _ in range(_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_TRY_SECONDS)
        else:
            os.close(handle)
            return False
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def holder(self) -> int | None:
        """Pid of the controller that holds the lock; None if nobody does."""
        if not self.path.exists():
            return None
        # Shared, so that two that only look do not take each other for a controller.
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(handle, 32).strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(handle)
        return None
