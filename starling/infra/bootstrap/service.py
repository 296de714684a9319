"""Keeps a node's agent running, and ends the machine when it ends: `python -m starling.infra.bootstrap.service`.

* The agent ends by itself: it has told the store why; the machine powers off.
* It crashes: what is left of it is killed and it starts again, MAX_RESTARTS times at most; then the store is told, and
  the machine powers off.
* SIGTERM, at a shutdown: it is passed on, and the agent drains.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import FrameType
from typing import IO

from starling.infra.bootstrap.machine import power_off
from starling.infra.bootstrap.stage0 import ROOT, BootLog, Report
from starling.infra.clock import Clock, SystemClock
from starling.infra.processes import MARKER, PARENT, kill_all

MAX_RESTARTS = 3
RESTART_SECONDS = 3.0
OUTPUT_END_SECONDS = 5.0
LAST_LINES = 15
LIFE = "STARLING_AGENT_LIFE"
"""Environment variable that tells one agent's processes from those of the one before it."""


def main() -> int:
    boot: dict[str, str] = json.loads(os.environ["STARLING_BOOT"])
    log = BootLog(ROOT)
    keeper = Keeper(boot, ROOT, log, SystemClock())
    signal.signal(signal.SIGTERM, keeper.pass_on)
    try:
        if (complaint := keeper.keep()) is not None:
            log.say(complaint, "ERROR")
            Report(boot, log).ended(complaint)
    finally:  # whatever happens: a machine without an agent costs for nothing
        power_off()
    return 0


class Keeper:
    """Starts the agent of one node, again if it must be."""

    def __init__(self, boot: dict[str, str], root: Path, log: BootLog, clock: Clock) -> None:
        self._boot, self._root, self._log, self._clock = boot, root, log, clock
        self._agent: subprocess.Popen[bytes] | None = None
        self._shutting_down = False

    def keep(self) -> str | None:
        """Return when the agent has ended for good: None if it meant to, else the complaint."""
        for life in range(MAX_RESTARTS + 1):
            self._clock.sleep(RESTART_SECONDS if life else 0.0)
            code, last = self._live(f"{os.getpid()}.{life}")
            if code == 0 or self._shutting_down:
                return None
            self._log.say(f"the agent ended with {code}", "WARNING")
        return "\n".join([f"the agent crashed {MAX_RESTARTS + 1} times, last with {code}:", *last])

    def pass_on(self, _number: int, _frame: FrameType | None) -> None:
        self._shutting_down = True
        if self._agent is not None:
            self._agent.terminate()

    def _live(self, life: str) -> tuple[int, list[str]]:
        """One life of the agent: its exit code and its last lines. Nothing of it is left afterwards."""
        marks = {MARKER: self._boot["node"], LIFE: life}
        environment = {**os.environ, **marks, PARENT: str(os.getpid())}
        agent = subprocess.Popen(
            self._command(), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._agent = agent
        if self._shutting_down:  # meanwhile
            agent.terminate()
        assert agent.stdout is not None
        last: deque[str] = deque(maxlen=LAST_LINES)
        pump = threading.Thread(target=_pump, args=(agent.stdout, last), daemon=True)
        pump.start()
        code = agent.wait()
        kill_all(marks)
        pump.join(OUTPUT_END_SECONDS)
        return code, list(last)

    def _command(self) -> list[str]:
        node = self._boot["node"]
        folder = self._root / "nodes" / node
        folder.mkdir(parents=True, exist_ok=True)
        options = shlex.split(os.environ.get("STARLING_AGENT_OPTIONS", ""))
        identity = ["--node", node, "--store", self._boot["store_uri"], "--folder", str(folder)]
        return [sys.executable, "-m", "starling.infra.agent", *identity, *options]


def _pump(output: IO[bytes], last: deque[str]) -> None:
    """To the console as it comes, and the last lines to be told."""
    with output:
        for line in output:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            last.append(line.decode(errors="replace").rstrip())


if __name__ == "__main__":
    sys.exit(main())
