"""Types `starling` commands and knows which process of a node is which."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import yaml

from starling.cli.opening import OpenRun, store_for
from starling.orchestrator import report
from tests.support import tasks
from tests.support.rounds import training_spec

PATIENCE = 240.0


class Commands:
    """One user at a shell, with one spec: the probe task on three nodes, 260 steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = folder / "probe.yaml"
        code = folder / "code"
        code.mkdir()
        shutil.copy(tasks.__file__, code / "probe.py")
        self.brake = folder / "brake"
        self.brake.touch()
        self.write_spec({})

    def write_spec(self, options: dict[str, Any], **nodes: Any) -> None:
        """Steps are slow until `result` is asked for, so that there is time to interrupt on any machine."""
        spec = {
            "name": "probe",
            "task": {"name": "probe:ProbeTask", "options": {"brake": str(self.brake), **options}},
            "code": "code",
            "training": training_spec(epochs=20),
            "nodes": {"min": 1, "max": 3, **nodes},
        }
        self.spec.write_text(yaml.safe_dump(spec))

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "starling.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=PATIENCE, check=False)

    def interrupt_at_once(self, nodes: list[str]) -> None:
        """Kill several nodes at the same time."""
        with ThreadPoolExecutor(len(nodes)) as pool:
            done = list(pool.map(lambda node: self.type("interrupt", "r", "--node", node, "--hard"), nodes))
        assert [d.returncode for d in done] == [0] * len(nodes), done

    def json(self, *words: str) -> dict[str, Any]:
        done = self.type(*words, "--json")
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(self, *more: str) -> None:
        done = self.type("run", str(self.spec), "--name", "r", "--detach", *more)
        assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, Any]:
        return self.json("status", "r")

    def wait(self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE) -> dict[str, Any]:
        """Poll the status until the condition holds; a run that ended meanwhile fails the test, with its events."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status()
            if condition(status):
                return status
            if status["state"] in ("done", "failed", "stopped"):
                break
            time.sleep(0.1)
        raise AssertionError(
            f"waited in vain for {what}\n{self.type('events', 'r').stdout}\n{self.type('logs', 'r').stdout}"
        )

    def wait_training(self, world_size: int, least_step: int = 5) -> dict[str, Any]:
        return self.wait(
            f"{world_size} nodes to train", lambda s: all_train(s, world_size) and (s["step"] or 0) >= least_step
        )

    def result(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Let go of the brake; the result once the run is over and its nodes and controllers are gone."""
        self.brake.unlink(missing_ok=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status()
            alive = [node for node in status["nodes"] if node["pids"]]
            if status["state"] in ("done", "failed", "stopped") and not alive and not self.controllers():
                return self.json("result", "r")
            time.sleep(0.2)
        raise AssertionError(f"the run did not end\n{self._record()}")

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.json("events", "r")["events"] if event["kind"] == kind]

    def process(self, node: str, part: str) -> int:
        """Pid of a node's `agent`, `supervisor` or (first) `worker`."""
        (pids,) = (n["pids"] for n in self.status()["nodes"] if n["id"] == node)
        commands = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in pids}
        if part == "worker":
            servers = [pid for pid, command in commands.items() if "multiprocessing.forkserver" in command]
            parents = {pid: psutil.Process(pid).ppid() for pid in pids}
            return next(pid for pid, parent in parents.items() if parent in servers)
        module = {"agent": "starling.infra.agent", "supervisor": "starling.trainer.supervisor"}[part]
        return next(pid for pid, command in commands.items() if module in command)

    def kill(self, node: str, part: str) -> None:
        os.kill(self.process(node, part), signal.SIGKILL)

    def controllers(self) -> list[int]:
        """Pids of this home's controllers."""
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "starling.orchestrator.controller" in (process.info["cmdline"] or [])
            and str(self.folder) in " ".join(process.info["cmdline"])
        ]

    def kill_controllers(self) -> None:
        for pid in self.controllers():
            os.kill(pid, signal.SIGKILL)

    def _record(self) -> str:
        return self.type("events", "r").stdout + self.type("logs", "r").stdout


class LocalCommands(Commands):
    """Of a run on this computer. Its status is looked at here: a new Python for every look would slow down what is
    looked at."""

    def status(self) -> dict[str, Any]:
        return report.status(OpenRun(store_for(None), "r").view())


def all_train(status: dict[str, Any], world_size: int) -> bool:
    """Whether so many nodes train, and every one of them has said so: their heartbeats come one after the other."""
    ranks = [node["rank"] for node in status["nodes"] if node["state"] == "training"]
    whole = len(ranks) == world_size and set(ranks) == set(range(world_size))
    return whole and status["world_size"] == world_size
