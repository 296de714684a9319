"""The folder of one local node: the files through which provider and machine process talk, and its lock.

launch.json      provider -> machine    what to start (Launch); written once, before the machine process
lock             machine                held for the life of the machine process
machine.json     machine -> provider    pid, IMDS endpoint, address; written once, by the process that holds the lock
interrupt.json   provider -> machine    take the node, after a notice or at once
rebalance        provider -> machine    recommend a rebalance
terminate        provider -> machine    end the node at once
poweroff.txt     agent -> machine       why the agent ended the node by itself
ended.json       machine -> provider    when and why the node ended; from then on it never starts again

A node has started once there is a machine.json, lives while its lock is held, and has ended once there is an
ended.json. Started, not locked and not ended means that the machine process was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from starling.infra.files import read_json, write_atomically, write_json
from starling.infra.processes import HOME, MARKER
from starling.infra.records import NodeIntent, Record

_FLOCK = "hhqqi"
"""struct flock of Linux: type, whence, start, length, pid."""


class Launch(Record):
    """What the machine process is told at its start."""

    intent: NodeIntent
    store_uri: str
    agent_options: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    """Where other nodes reach this one."""
    instance_id: str = ""
    """What the machine is called; empty: `local-<node>`."""


class MachineFile(Record):
    """What the machine process tells about itself."""

    pid: int
    imds_endpoint: str
    launched_at: float
    address: str


class Interrupt(Record):
    """A rehearsed spot interruption."""

    notice: float | None
    """Seconds from `at` until the machine is taken; None takes it at once."""
    at: float


class Ended(Record):
    at: float
    reason: str


class NodeFolder:
    """Reads and writes the files of one node. Every write is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.node = path.name

    @property
    def marks(self) -> dict[str, str]:
        """The environment by which every process of this node is known."""
        return {MARKER: self.node, HOME: str(self.path.parent.parent)}

    def launch(self) -> Launch | None:
        return self._read("launch.json", Launch)

    def write_launch(self, launch: Launch) -> None:
        write_atomically(self.path / "launch.json", launch.to_bytes())

    def machine(self) -> MachineFile | None:
        return self._read("machine.json", MachineFile)

    def write_machine(self, machine: MachineFile) -> None:
        write_atomically(self.path / "machine.json", machine.to_bytes())

    def interrupt(self) -> Interrupt | None:
        return self._read("interrupt.json", Interrupt)

    def write_interrupt(self, interrupt: Interrupt) -> None:
        write_atomically(self.path / "interrupt.json", interrupt.to_bytes())

    def rebalance_at(self) -> float | None:
        """When a rebalance was recommended, if it was."""
        value = read_json(self.path / "rebalance")
        return None if value is None else float(value)

    def write_rebalance(self, at: float) -> None:
        write_json(self.path / "rebalance", at)

    def ended(self) -> Ended | None:
        return self._read("ended.json", Ended)

    @property
    def scratch(self) -> Path:
        """The node's temporary files. Outside the folder, because sockets lie in it and their paths must be short."""
        return Path(tempfile.gettempdir()) / f"starling-{hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}"

    def write_ended(self, ended: Ended) -> None:
        """Only by whoever holds the lock, when nothing of the node is left to use its temporary files."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        write_atomically(self.path / "ended.json", ended.to_bytes())

    @property
    def terminate_file(self) -> Path:
        return self.path / "terminate"

    @property
    def poweroff_file(self) -> Path:
        return self.path / "poweroff.txt"

    def locked(self) -> bool:
        """Whether a machine process lives. Looking does not take the lock, so it cannot disturb a start."""
        try:
            handle = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
        finally:
            os.close(handle)
        return bool(struct.unpack_from(_FLOCK, answer)[0] != fcntl.F_UNLCK)

    def _read(self, name: str, record: type[Any]) -> Any | None:
        try:
            return record.from_bytes((self.path / name).read_bytes())
        except FileNotFoundError:
            return None


class NodeLock:
    """The node's lock: freed by the kernel when its process ends, however it ends.

    An open-file-description lock: unlike POSIX record locks it also excludes threads of one process, and unlike
    flock(2) it can be looked at without being taken.
    """

    def __init__(self, folder: NodeFolder) -> None:
        self._path = folder.path / "lock"
        self._handle: int | None = None

    def take(self) -> bool:
        """Try to take the lock, without waiting."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def free(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
