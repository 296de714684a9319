"""Stock torchrun with its c10d rendezvous, one agent a node."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from benchmarks.recovery_groups import diaries
from benchmarks.recovery_groups.diaries import World
from benchmarks.recovery_groups.group import Group, differences, kill, with_descendants

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "recovery_job" / "script.py"

_PARTS = {
    "noticing, agreeing, starting the process": "started",
    "importing torch": "imported",
    "connecting the processes": "connected",
    "model, newest state": "loaded",
    "the first step": "step",
}
"""What ends each part, in the script's diary."""
_HOST = (
    "import sys; from torch.distributed import TCPStore; "
    "store = TCPStore('127.0.0.1', int(sys.argv[1]), is_master=True, wait_for_workers=False); "
    "print('up', flush=True); sys.stdin.read()"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How torchrun is called, beyond what it needs."""

    rendezvous: dict[str, int] = field(default_factory=dict)
    """`--rdzv-conf`."""
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    host_outside: bool = False
    """The c10d store lives in a process of its own that is never killed, instead of in the first node's agent."""


class TorchrunNodes(Group):
    """Agents on loopback."""

    def __init__(self, folder: Path, size: int, settings: Settings) -> None:
        super().__init__(folder, size)
        self._settings = settings
        self._port = _free_port()
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._host: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._settings.host_outside:
            command = [sys.executable, "-c", _HOST, str(self._port)]
            self._host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._host.stdout is not None
            self._host.stdout.readline()
        for number in range(self.size):
            name = f"agent-{number}"
            self._agents[name] = self._start_agent(name, is_host=number == 0 and not self._settings.host_outside)

    def stop(self) -> None:
        kill(with_descendants(self.roots().values()))
        for agent in self._agents.values():
            agent.wait()
        if self._host is not None:
            self._host.kill()
            self._host.communicate()

    def roots(self) -> dict[str, int]:
        return {name: agent.pid for name, agent in self._agents.items() if agent.poll() is None}

    def hosting_node(self) -> str | None:
        return None if self._settings.host_outside else "agent-0"

    def phases(self, killed_at: float, world: World) -> dict[str, float]:
        entries = diaries.read(self.diaries)
        after = {part: diaries.latest(entries, what, world.pids) for part, what in _PARTS.items()}
        return differences(after, killed_at)

    def _start_agent(self, name: str, *, is_host: bool) -> subprocess.Popen[bytes]:
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        conf = {**self._settings.rendezvous, "is_host": int(is_host)}
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes=1:{self.size}", "--nproc-per-node=1"),
            *("--max-restarts=1000", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{self._port}", "--rdzv-id=job"),
            *("--rdzv-conf=" + ",".join(f"{key}={value}" for key, value in conf.items()), "--local-addr=127.0.0.1"),
            *(*self._settings.options, str(SCRIPT), str(self.diaries), str(checkpoints)),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.folder),
            **self._settings.environment,
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _free_port() -> int:
    with closing(socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
