"""What is to be seen of a run from outside, quickly: its step, its group, its nodes and their processes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.scene import RUN, Scene
from chaos.schedule import Moment, Who
from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound
from starling.infra.processes import HOME, MARKER, marks_by_pid
from starling.infra.providers.local.folder import NodeFolder
from starling.infra.records import Progress, RunRecord, Verdict
from starling.orchestrator.reading import read_spec, read_verdict
from starling.trainer.checkpoint.manifest import take_inventory
from starling.trainer.rendezvous_state import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """One look."""

    step: int
    """The newest step that any node which is up has completed; -1: none has yet."""
    up: tuple[str, ...]
    """Nodes whose machines run."""
    training: tuple[str, ...]
    """Nodes that take part in a formed round, in rank order."""
    forming: bool
    """No round is formed, or its training processes have not begun."""

    def fits(self, moment: Moment, wanted: int) -> bool:
        """Whether this is the moment (UPLOADING apart, for which see `Lookout.uploading`)."""
        match moment:
            case Moment.TRAINING:
                return bool(self.training)
            case Moment.FULL:
                return len(self.training) >= wanted
            case Moment.FORMING:
                return self.forming and bool(self.up)
            case Moment.JOINING:
                return bool(self.training) and len(self.up) > len(self.training)
        return True

    def victims(self, who: Who) -> tuple[str, ...]:
        """Whom a fault hits now; those that are up, if none trains."""
        there = self.training or self.up
        match who:
            case Who.RANK0:
                return there[:1]
            case Who.OTHER:
                return there[1:2] or there[:1]
            case Who.TWO:
                return there[:2]
        return self.up


class Lookout:
    """Looks at the run of a scene, without the trouble that its processes have."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._nodes = scene.home / "nodes"

    def look(self) -> Sight:
        group = self._group()
        up = tuple(folder.name for folder in self._folders() if NodeFolder(folder).locked())
        members = tuple(member.label for member in group.members) if group.formed else ()
        training = tuple(node for node in members if node in up and self._round(node) == group.round)
        return Sight(step=self._step(up), up=up, training=training, forming=len(training) < len(members) or not members)

    def uploading(self) -> bool:
        """Whether a checkpoint has begun to arrive in the store and is not committed."""
        there = take_inventory(self._scene.store, layout.checkpoints(RUN))
        return bool(there.begun) and there.begun[-1] > max(there.committed, default=-1)

    def record(self) -> RunRecord:
        return RunRecord.from_bytes(self._scene.store.get(layout.run_record(RUN)).data)

    def verdict(self) -> Verdict | None:
        return read_verdict(self._scene.store, RUN, self.record().incarnation)

    def wanted(self) -> int:
        """How many nodes the run asks for."""
        return read_spec(self._scene.store, RUN, self.record().incarnation).nodes.max

    def processes(self) -> dict[int, str | None]:
        """Every process of this home: pid -> its node, None for controllers and commands."""
        found = marks_by_pid((HOME, MARKER))
        return {pid: marks.get(MARKER) for pid, marks in found.items() if marks.get(HOME) == str(self._scene.home)}

    def controllers(self) -> list[int]:
        return [pid for pid in self.processes() if "starling.orchestrator.controller" in _command(pid)]

    def processes_of(self, node: str, part: str) -> list[int]:
        """Pids of a node's `machine`, `agent`, `supervisor` or `worker`s; `all` of them but its machine."""
        mine = [pid for pid, owner in self.processes().items() if owner == node]
        machine = [pid for pid in mine if "starling.infra.providers.local.machine" in _command(pid)]
        if part == "machine":
            return machine
        if part == "all":
            return [pid for pid in mine if pid not in machine]
        if part == "worker":
            servers = [pid for pid in mine if "multiprocessing.forkserver" in " ".join(_command(pid))]
            return [pid for pid in mine if _parent(pid) in servers]
        module = {"agent": "starling.infra.agent", "supervisor": "starling.trainer.supervisor"}[part]
        return [pid for pid in mine if module in _command(pid)]

    def _group(self) -> Group:
        key = f"{layout.rendezvous(RUN, self.record().incarnation)}/group.json"
        try:
            return Group.from_bytes(self._scene.store.get(key).data)
        except ObjectNotFound:
            return Group()

    def _folders(self) -> list[Path]:
        return sorted(self._nodes.glob("[!.]*"))

    def _work(self, node: str) -> Path:
        return self._nodes / node / "work" / RUN

    def _round(self, node: str) -> int:
        try:
            return Progress.from_bytes((self._work(node) / "progress.json").read_bytes()).round
        except (FileNotFoundError, ObjectCorrupt):
            return -1

    def _step(self, nodes: Iterable[str]) -> int:
        steps = [-1]
        for node in nodes:
            try:
                steps.append(int(struct.unpack("<q", (self._work(node) / "steps").read_bytes())[0]))
            except (FileNotFoundError, struct.error):
                continue
        return max(steps)


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def _parent(pid: int) -> int:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return 0
