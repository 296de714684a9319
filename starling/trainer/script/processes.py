"""The processes of a script on this node: how they ended, what they write, and the end of all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from subprocess import Popen

from starling.infra.processes import kill_all, marked
from starling.infra.snapshots.listing import is_log

ROUND = "STARLING_ROUND"
"""Environment variable that everything a script starts carries: whatever session it is in, it ends with the round."""

_O_ACCMODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


class ScriptProcesses:
    """One process for each local rank, with whatever they started (data loaders, savers)."""

    def __init__(self, processes: Mapping[int, Popen[bytes]], mark: str, *, signal_group: bool) -> None:
        """`signal_group`: SIGTERM goes to the whole process group, as the main process may be a mere launcher."""
        self._processes = processes
        self._marks = {ROUND: mark}
        self._signal_group = signal_group

    def exit_codes(self) -> dict[int, int | None]:
        """Of every local rank's main process; None while it runs."""
        return {local_rank: process.poll() for local_rank, process in self._processes.items()}

    def failed(self) -> bool:
        """Whether one has ended, and not with 0."""
        return bool(set(self.exit_codes().values()) - {0, None})

    def finished(self) -> bool:
        """Whether all have ended with 0."""
        return set(self.exit_codes().values()) == {0}

    def terminate(self) -> None:
        """SIGTERM. To a Python script's main process only: its data loaders must live on while it saves."""
        for process in self._processes.values():
            if process.poll() is not None:
                continue
            if self._signal_group:
                os.killpg(process.pid, signal.SIGTERM)
            else:
                process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Until all main processes have ended, at most so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and None in self.exit_codes().values():
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL everything that is left, children included; returns when nothing is."""
        kill_all(self._marks)
        for process in self._processes.values():
            process.wait()

    def writes(self, folder: Path, logs: Iterable[str]) -> str | None:
        """A file of the folder, no log, that any of these processes holds open for writing."""
        root, patterns = os.path.realpath(folder), tuple(logs)
        for process in marked(self._marks):
            for path in _open_for_writing(process.pid):
                inside = os.path.relpath(path, root) if path.startswith(f"{root}/") else None
                if inside is not None and not is_log(inside, patterns):
                    return inside
        return None


def _open_for_writing(pid: int) -> list[str]:
    """Paths of a process' files; what ends or closes while we look is left out."""
    found = []
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target.startswith("/") and _is_writable(pid, descriptor):
                    found.append(target)
            except (FileNotFoundError, ProcessLookupError):
                continue
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return found


def _is_writable(pid: int, descriptor: str) -> bool:
    for line in Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & _O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    return False
