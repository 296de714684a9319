"""Checks a node's GPUs before anything is trained on them: a sick one is replaced, not crash-looped."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress

TIMEOUT_SECONDS = 120.0
"""The first call on a fresh machine loads the driver; a GPU that has fallen off the bus may never answer."""
KILL_SECONDS = 2.0
"""How long a killed nvidia-smi is waited for; one that hangs in the driver cannot be killed at all."""
COMMAND = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader")


def complaint(wanted: int) -> str | None:
    """Why this machine's GPUs cannot serve a run that wants so many of them; None if they can."""
    if wanted == 0:
        return None
    try:
        answer = ask(COMMAND)
    except FileNotFoundError:
        return "nvidia-smi is missing: no NVIDIA driver"
    except subprocess.TimeoutExpired:
        return f"nvidia-smi did not answer within {TIMEOUT_SECONDS:.0f} s"
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        return f"nvidia-smi failed with {answer.returncode}: {said[-1] if said else 'no output'}"
    return _count_complaint(answer.stdout, wanted)


def ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that asks the driver. Raises FileNotFoundError, and TimeoutExpired after TIMEOUT_SECONDS.

    `subprocess.run` would wait for what it has killed, without limit.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said, complained = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILL_SECONDS)
        raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _count_complaint(listing: str, wanted: int) -> str | None:
    healthy = [line for line in listing.splitlines() if "GPU-" in line and "error" not in line.lower()]
    if len(healthy) < wanted:
        return f"{len(healthy)} healthy GPUs, {wanted} wanted; nvidia-smi lists: {'; '.join(listing.splitlines())}"
    return None
