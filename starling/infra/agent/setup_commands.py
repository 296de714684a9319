"""The spec's `setup` commands: shell commands of the user's that make a node ready for the run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from starling.infra.errors import StarlingError

LAST_LINES = 15
OUTPUT_END_SECONDS = 2.0


def run_setup(
    commands: Sequence[str],
    *,
    folder: Path,
    done: Path,
    content: str,
    python_path: Sequence[Path],
    sink: Callable[[bytes], None],
) -> None:
    """Run them one after another in `folder`, once for each list of commands and each `content` (the code's hash).

    The file `done` remembers. Each runs in a shell of its own that stops at the first command to fail; programs of our
    Python's environment come first on PATH; all output goes to `sink` as it comes.
    Raises StarlingError for the first that fails, with its exit code and last lines.
    """
    wanted = hashlib.sha256(json.dumps([content, *commands]).encode()).hexdigest()
    if not commands or (done.is_file() and done.read_text() == wanted):
        return
    environment = _environment(python_path)
    for command in commands:
        _run(command, folder, environment, sink)
    done.write_text(wanted)


def _environment(python_path: Sequence[Path]) -> dict[str, str]:
    programs = Path(sys.executable).parent
    entries = [*map(str, python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(programs.parent),
        "PYTHONPATH": os.pathsep.join(entries),
        "PYTHONUNBUFFERED": "1",
    }


def _run(command: str, folder: Path, environment: dict[str, str], sink: Callable[[bytes], None]) -> None:
    sink(f"setup: {command}\n".encode())
    process = subprocess.Popen(
        [shutil.which("bash") or "/bin/sh", "-e", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=LAST_LINES)
    pump = threading.Thread(target=_pump, args=(process.stdout, sink, last), name="setup-output", daemon=True)
    pump.start()
    code = process.wait()
    pump.join(OUTPUT_END_SECONDS)  # a service that the command has started may hold on to its output
    if code != 0:
        raise StarlingError("\n".join([f"setup command {command!r} ended with exit code {code}:", *last]))


def _pump(output: IO[bytes], sink: Callable[[bytes], None], last: deque[str]) -> None:
    with output:
        for line in output:
            sink(line)
            last.append(line.decode(errors="replace").rstrip())
