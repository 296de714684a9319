"""Runs the trainer's supervisor as a child of the agent."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from starling.infra.processes import PARENT, kill_all

LIFE = "STARLING_LIFE"
"""Environment variable that tells one supervisor's processes from those of the one before it on the same node."""
OUTPUT_END_SECONDS = 5.0

_LIVES = itertools.count(1)


class SupervisorProcess:
    """One start of `python -m <module> --job <job file>` and everything that comes of it.

    Construct it in the agent's main thread: the supervisor dies with the thread that started it.
    """

    def __init__(
        self,
        *,
        module: str,
        job_file: Path,
        python_path: Sequence[Path],
        marks: dict[str, str],
        sink: Callable[[bytes], None],
    ) -> None:
        """`marks` is the environment by which all processes of the node are known; output goes to `sink`."""
        self._marks = {**marks, LIFE: f"{os.getpid()}.{next(_LIVES)}"}
        entries = [*map(str, python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **self._marks,
            PARENT: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join(entries),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--job", str(job_file)],
            cwd=job_file.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._pump = threading.Thread(
            target=_pump, args=(self._process.stdout, sink), name="supervisor-output", daemon=True
        )
        self._pump.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs. Does not wait."""
        return self._process.poll()

    def clear(self) -> None:
        """Kill the supervisor, if it runs, and everything it started; then take in the rest of its output."""
        kill_all(self._marks)
        self._process.wait()
        self._pump.join(OUTPUT_END_SECONDS)


def _pump(output: IO[bytes], sink: Callable[[bytes], None]) -> None:
    """Take output as it comes, whatever the store does: a full pipe would stop the training."""
    with output:
        while data := output.read(1 << 16):
            sink(data)
