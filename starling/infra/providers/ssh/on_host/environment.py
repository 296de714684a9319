"""The Python that nodes on this host run with: the host's own if it has everything, else one made under the root.

Needs nothing but Python itself. `python -m ...environment FOLDER` makes an environment; it runs detached, because that
takes minutes. How one is made is told in `starling/infra/bootstrap/environment.py`, as for nodes of a cloud.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from starling.infra.bootstrap.environment import CONSTRAINTS, REQUIREMENTS, environment_python
from starling.infra.bootstrap.stage0 import BootError, BootLog

NEEDED = ("boto3", "numpy", "psutil", "pydantic", "yaml", "PIL", "safetensors", "torch", "torchvision")
"""What a node imports. A Python that has all of these is used as it is, whatever their versions."""
RETRY_SECONDS = 60.0
"""How long a failure is reported before it is tried again."""


def find(root: Path, *, prepare: bool) -> Path | dict[str, Any]:
    """The Python to use, or what to answer instead of it.

    With `prepare`, an environment that is missing is begun: {"preparing": seconds so far}, or {"unready": why}.
    Without, any that can list and end nodes will do, and {"empty": true} says that no node can ever have run here.
    """
    if all(importlib.util.find_spec(name) is not None for name in NEEDED):
        return Path(sys.executable)
    folder = root / "environments" / _name()
    if (python := _python(folder)) is not None:
        os.utime(folder)  # in use, so not to be cleared away
        return python
    if prepare:
        try:
            return _begin(folder)
        except OSError as error:  # a full disk, most often: nobody could even write down what went wrong
            return {"unready": f"{error.strerror or error}: {error.filename or folder}"}
    others = (_python(other) for other in sorted(folder.parent.glob("[!.]*")))
    return next((python for python in others if python is not None), {"empty": True})


def make(folder: Path) -> int:
    """Make the environment. Returns an exit code. Whoever started this has its lock; it is ours until we end."""
    os.environ.update(STARLING_PYTHON=sys.executable, PIP_NO_CACHE_DIR="1")
    try:
        environment_python(folder, BootLog(folder))
    except Exception as error:  # whatever it is, somebody waits for this word
        told = str(error) if isinstance(error, BootError) else f"{type(error).__name__}: {error}"
        (folder / "failed").write_text(told)
        return 1
    return 0


def begun_at(folder: Path) -> float | None:
    """When somebody began to make this environment, if somebody is at it."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        return (folder / "lock").stat().st_mtime
    return None


def _begin(folder: Path) -> Path | dict[str, Any]:
    """Start making it, or say how far that is. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return {"preparing": time.time() - (folder / "lock").stat().st_mtime}
        if (python := _python(folder)) is not None:
            return python  # it was ready a moment ago
        if (failure := _failure(folder)) is not None:
            return {"unready": failure}
        os.utime(folder)
        os.utime(folder / "lock")
        _start(folder, lock.fileno())
    return {"preparing": 0.0}


def _failure(folder: Path) -> str | None:
    """Why the last attempt failed, if that was just now. One that left neither an environment nor a word was killed, or
    had no room for a word: that is written down here, now."""
    failed, output = folder / "failed", folder / "boot.out"
    if output.exists() and not failed.exists():
        last = output.read_text(errors="replace").strip()[-500:]
        failed.write_text(f"making its environment ended without a word (no memory, or no room?); last lines: {last}")
    if failed.exists() and time.time() - failed.stat().st_mtime < RETRY_SECONDS:
        return failed.read_text()
    failed.unlink(missing_ok=True)
    return None


def _start(folder: Path, lock: int) -> None:
    """Detached, and with the lock, which is free when that process has ended."""
    with (folder / "boot.out").open("wb") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "starling.infra.providers.ssh.on_host.environment", str(folder)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": sys.path[0]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )


def _name() -> str:
    """One environment for each set of versions, and each Python."""
    content = REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes() + f"{sys.executable} {sys.version}".encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _python(folder: Path) -> Path | None:
    """The interpreter of an environment that was made to its end."""
    try:
        return Path(json.loads((folder / "image.json").read_bytes())["python"])
    except (FileNotFoundError, NotADirectoryError):
        return None


if __name__ == "__main__":
    sys.exit(make(Path(sys.argv[1])))
