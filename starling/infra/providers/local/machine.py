"""Stands in for the hardware and the hypervisor of one local node: `python -m ...local.machine <node folder>`.

The life of a node:

1. Detach from the command that launched it: own session, no terminal, child of nobody.
2. Take the node's lock. Whoever cannot get it, or finds that the node has started before, leaves quietly: a node
   never starts twice.
3. Adopt orphans, serve IMDS, write machine.json, start the agent.
4. Watch: an interruption (notice first, then the end), a termination, the agent's own end.
5. Kill every process of the node, write ended.json, exit. Killed before that itself, its processes die with it
   (`die_with_parent`), and the provider sweeps what is left and writes ended.json.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from starling.infra.imds.client import ENDPOINT_VARIABLE
from starling.infra.imds.server import Identity, ImdsServer
from starling.infra.logs import log_to_stderr
from starling.infra.processes import PARENT, SHARED_MACHINE, become_subreaper, kill_all, reap
from starling.infra.providers.local.folder import Ended, Interrupt, Launch, MachineFile, NodeFolder, NodeLock

ZONE = "local"
TICK_SECONDS = 0.1
NOTICE_POLL_SECONDS = 1.0
AGENT_LOG_BYTES = 4 << 20
"""The agent's log is cut back to nothing when it has grown to this; its lines are in the store's logs anyway."""

_log = logging.getLogger("starling.machine")


def main() -> int:
    folder = NodeFolder(Path(sys.argv[1]))
    ready = _detach(folder.path / "machine.log")
    log_to_stderr()
    launch = folder.launch()
    lock = NodeLock(folder)
    if launch is None or not lock.take() or folder.ended() is not None or folder.machine() is not None:
        return 0
    machine = LocalMachine(folder, launch)
    machine.power_on()
    os.close(ready)
    machine.power_off(machine.watch())
    return 0


class LocalMachine:
    """One node from power-on to its end."""

    def __init__(self, folder: NodeFolder, launch: Launch) -> None:
        self._folder = folder
        self._launch = launch
        self._launched_at = time.time()
        self._imds = ImdsServer(_identity(launch, self._launched_at))
        self._interrupt: Interrupt | None = None
        self._rebalance_at: float | None = None
        self._agent = 0
        self._signalled: str | None = None

    def power_on(self) -> None:
        become_subreaper()
        signal.signal(signal.SIGTERM, self._on_signal)
        me = MachineFile(
            pid=os.getpid(),
            imds_endpoint=self._imds.endpoint,
            launched_at=self._launched_at,
            address=self._launch.address,
        )
        self._folder.write_machine(me)  # before the agent: from here on the node counts as started
        self._agent = self._start_agent()
        _log.info("node %s is on: agent %d, metadata at %s", self._folder.node, self._agent, self._imds.endpoint)

    def watch(self) -> str:
        """Wait for the node's end; return its reason."""
        while (reason := self._end_reason()) is None:
            time.sleep(TICK_SECONDS)
        return reason

    def power_off(self, reason: str) -> None:
        """Kill everything, then say so. In this order: `ended.json` promises that nothing else is left."""
        killed = kill_all(self._folder.marks, below=os.getpid())
        reap()
        _log.info("node %s has ended: %s (%d processes killed)", self._folder.node, reason, killed)
        self._imds.close()
        self._folder.write_ended(Ended(at=time.time(), reason=reason))

    def _start_agent(self) -> int:
        """Not a Popen: orphans must be reaped with waitpid(-1), which would take the agent's exit status as well."""
        log = str(self._folder.path / "agent.log")
        to_log = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        command = [
            *(sys.executable, "-m", "starling.infra.agent", "--node", self._folder.node),
            *("--store", self._launch.store_uri, "--folder", str(self._folder.path)),
            *("--notice-poll", str(NOTICE_POLL_SECONDS), *self._launch.agent_options),
        ]
        scratch = self._folder.scratch
        scratch.mkdir(mode=0o700, exist_ok=True)
        environment = {
            **os.environ,
            ENDPOINT_VARIABLE: self._imds.endpoint,
            PARENT: str(os.getpid()),
            SHARED_MACHINE: "1",
            "TMPDIR": str(scratch),
        }
        return os.posix_spawn(sys.executable, command, environment, file_actions=[to_log, (os.POSIX_SPAWN_DUP2, 1, 2)])

    def _end_reason(self) -> str | None:
        ended = reap()
        _bound(self._folder.path / "agent.log")
        if self._signalled is not None:
            return self._signalled
        if self._folder.terminate_file.exists():
            return "terminated"
        if (taken := self._interruption()) is not None:
            return taken
        self._pass_on_rebalance()
        return self._agent_end(ended[self._agent]) if self._agent in ended else None

    def _interruption(self) -> str | None:
        asked = self._folder.interrupt()
        if asked is None:
            return None
        if asked.notice is None:
            return "interrupted without notice"
        if self._interrupt is None or asked.at + asked.notice < _taken_at(self._interrupt):
            self._interrupt = asked
            self._imds.post_interruption(_taken_at(asked))
            _log.info("interruption notice: %g s", asked.notice)
        if time.time() >= _taken_at(self._interrupt):
            return f"interrupted after a notice of {self._interrupt.notice:g} s"
        return None

    def _pass_on_rebalance(self) -> None:
        if self._rebalance_at is None and (at := self._folder.rebalance_at()) is not None:
            self._rebalance_at = at
            self._imds.post_rebalance(at)

    def _agent_end(self, exit_code: int) -> str:
        if exit_code != 0:
            return f"agent died ({_describe(exit_code)})"
        try:
            return self._folder.poweroff_file.read_text().strip()
        except FileNotFoundError:
            return "powered off by its agent"

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signalled = f"machine process got {signal.Signals(number).name}"


def _detach(log: Path) -> int:
    """Carry on in a child of nobody; the launching process returns to its caller once the child closes the returned
    descriptor or ends, so that a launch is visible to `list` when `launch` returns."""
    wait_end, ready_end = os.pipe()
    if os.fork() != 0:
        os.close(ready_end)
        os.read(wait_end, 1)
        os._exit(0)
    os.close(wait_end)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
    return ready_end


def _identity(launch: Launch, launched_at: float) -> Identity:
    offer = launch.intent.offer
    return Identity(
        instance_id=instance_id(launch),
        instance_type=offer.instance_type,
        zone=offer.zone,
        region=ZONE,
        address=launch.address,
        market=offer.market,
        launched_at=launched_at,
    )


def instance_id(launch: Launch) -> str:
    return launch.instance_id or f"local-{launch.intent.node}"


def _taken_at(interrupt: Interrupt) -> float:
    return interrupt.at + (interrupt.notice or 0.0)


def _describe(exit_code: int) -> str:
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"


def _bound(log: Path) -> None:
    if log.stat().st_size > AGENT_LOG_BYTES:
        os.truncate(log, 0)


if __name__ == "__main__":
    sys.exit(main())
