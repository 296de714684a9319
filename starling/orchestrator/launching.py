"""Starts a run's controller in the background."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from starling.orchestrator.controller_lock import ControllerLock, controllers_folder


def start_controller(run: str, store_uri: str) -> int | None:
    """Start a controller that outlives this process; its pid, or None if one works on this machine already."""
    if controller_pid(run, store_uri) is not None:
        return None
    with controller_log(run).open("ab") as log:
        process = subprocess.Popen(
            # -P: a file in the user's folder must not stand in for a module of ours.
            [sys.executable, "-P", "-m", "starling.orchestrator.controller", run, "--store", store_uri],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Reaped while we live, so that a controller that ends is not left as a zombie; it does not need us to live.
    threading.Thread(target=process.wait, name="controller-reaper", daemon=True).start()
    return process.pid


def controller_pid(run: str, store_uri: str) -> int | None:
    """The controller of this run on this machine, if there is one (0: it is only just starting)."""
    return ControllerLock(run, store_uri).holder()


def controller_log(run: str) -> Path:
    """Where controllers of this run on this machine write to."""
    return controllers_folder() / f"{run}.log"
