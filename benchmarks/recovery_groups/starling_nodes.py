"""The product: local nodes of a run that the command line started, with every setting at its default."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import yaml

from benchmarks.recovery_groups import diaries
from benchmarks.recovery_groups.diaries import World
from benchmarks.recovery_groups.group import Group, differences
from benchmarks.recovery_job import training
from starling.infra.processes import HOME, MARKER, kill_all, marks_by_pid
from starling.infra.providers.local.provider import LocalProvider

ROOT = Path(__file__).resolve().parents[2]
RUN = "recovery"

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?:supervisor|rank \d+) \w+ (.*)")
_LOGGED = {
    "noticing the loss": r"round \d+ ended",
    "agreeing on the new group": r"round \d+ formed",
    "starting the process": "started for a world",
    "connecting the processes": "connected to",
    "task, model, newest state": r"round \d+: from step",
}
"""What ends each part, in the nodes' logs."""


class StarlingNodes(Group):
    """Nodes of one run. Its controller is held (SIGSTOP), so that no replacement boots on the very cores whose
    recovery is timed: on a real cluster it would boot elsewhere, and torchrun starts none."""

    def __init__(self, folder: Path, size: int, store_uri: str, environment: dict[str, str]) -> None:
        super().__init__(folder, size)
        self._home = (folder / "home").resolve()
        self._store_uri = store_uri
        self._environment = {**os.environ, **environment, HOME: str(self._home), "PYTHONPATH": str(ROOT)}

    def start(self) -> None:
        spec = self.folder / "recovery.yaml"
        spec.write_text(yaml.safe_dump(self._spec()))
        command = [sys.executable, "-m", "starling.cli", "run", str(spec), "--name", RUN, "--detach"]
        subprocess.run(command, env=self._environment, check=True, stdout=sys.stderr)

    def await_whole(self) -> None:
        super().await_whole()
        self._hold_controller()

    def stop(self) -> None:
        kill_all({HOME: str(self._home)})
        provider = LocalProvider(home=self._home)
        provider.terminate([machine.node for machine in provider.list()])  # temporary files go with them

    def roots(self) -> dict[str, int]:
        folders = sorted((self._home / "nodes").glob("[!.]*"))
        machines = LocalProvider(home=self._home).list(RUN)
        alive = {machine.node for machine in machines if machine.alive}
        return {path.name: _machine_pid(path) for path in folders if path.name in alive}

    def phases(self, killed_at: float, world: World) -> dict[str, float]:
        time.sleep(0.5)  # for the last log lines on their way through the agents
        logs = [(self._home / "nodes" / name / "node.log").read_text() for name in self.roots()]
        marks: dict[str, float | None] = {
            part: _latest([_first(log, pattern, killed_at) for log in logs]) for part, pattern in _LOGGED.items()
        }
        entries = diaries.read(self.diaries)
        return differences(
            marks | {"the first step": diaries.latest(entries, "step", world.pids, killed_at)},
            killed_at,
        )

    def _spec(self) -> dict[str, object]:
        return {
            "name": RUN,
            "task": {"name": "benchmarks.recovery_job.task:RecoveryTask", "options": {"diary": str(self.diaries)}},
            "code": str(ROOT / "benchmarks" / "recovery_job"),
            "training": {
                "epochs": 1,
                "global_batch": training.BATCH,
                "optimizer": {"name": "sgd", "lr": training.RATE},
            },
            "nodes": {"min": 1, "max": self.size},
            "store": self._store_uri,
        }

    def _hold_controller(self) -> None:
        for pid, marks in marks_by_pid((HOME, MARKER)).items():
            if marks == {HOME: str(self._home)}:
                os.kill(pid, signal.SIGSTOP)


def _machine_pid(folder: Path) -> int:
    return int(yaml.safe_load((folder / "machine.json").read_text())["pid"])


def _first(log: str, pattern: str, after: float) -> float | None:
    """When a node first logged this after a time; None: never."""
    for line in log.splitlines():
        found = _LINE.match(line)
        if found and re.match(pattern, found[2]):
            at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            if at >= after - 0.001:  # logs have milliseconds
                return at
    return None


def _latest(times: list[float | None]) -> float | None:
    known = [at for at in times if at is not None]
    return max(known) if known else None
