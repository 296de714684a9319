"""Makes faults happen: real signals to real processes, real notices, a store in real trouble."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from chaos.bounds import AT_NOBODY
from chaos.chores import Chore, Resume, StopAndResume
from chaos.evidence import Played
from chaos.lookout import Lookout, Sight
from chaos.scene import RUN, Scene
from chaos.schedule import Fault, Kind
from chaos.trouble import Window
from starling.infra.home import node_folder
from starling.infra.journal import Journal
from starling.infra.providers.local.folder import Interrupt, NodeFolder
from starling.infra.records import EventKind


class Striker:
    """Strikes, and takes back in time what does not last."""

    def __init__(self, scene: Scene, lookout: Lookout) -> None:
        self._scene = scene
        self._lookout = lookout
        self._journal = Journal(scene.store, RUN)
        self._windows: list[Window] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.chores: list[Chore] = []

    def strike(self, number: int, fault: Fault, sight: Sight, note: str) -> Played:
        """Make it happen now, to those whom `sight` shows."""
        at = time.time()
        victims = () if fault.kind in AT_NOBODY else sight.victims(fault.who)
        match fault.kind:
            case Kind.STORE:
                self._open_window(fault)
            case Kind.STOP:
                self.chores.append(StopAndResume(self._scene, self._lookout, fault.nodes_max))
            case Kind.KILL_CONTROLLER:
                _signal(self._lookout.controllers(), signal.SIGKILL)
                self.chores.append(Resume(self._scene, fault.seconds))
            case _:
                victims = self._hit(fault, victims, at)
                note = note or ("" if victims else "nobody was there to be hit")
        return Played(
            number=number,
            fault=fault,
            at=at,
            until=at + (0.0 if fault.kind is Kind.KILL_CONTROLLER else fault.seconds),
            step=sight.step,
            hit=victims,
            everybody=bool(victims) and set(victims) >= set(sight.training or sight.up),
            note=note,
        )

    def resume(self) -> None:
        """Have somebody type `starling resume`."""
        self.chores.append(Resume(self._scene, 0.0))

    def kill(self, pid: int) -> None:
        _signal([pid], signal.SIGKILL)

    def tick(self) -> None:
        """Do what has become due."""
        now = time.time()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()

    def busy(self) -> bool:
        """Whether something is still to be taken back."""
        return bool(self._later)

    def make_good(self) -> None:
        """Take everything back now."""
        for _, act in self._later:
            act()
        self._later = []

    def _hit(self, fault: Fault, victims: tuple[str, ...], at: float) -> tuple[str, ...]:
        """Strike these nodes; those of them that had what was to be struck."""
        part = {
            Kind.KILL_AGENT: "agent",
            Kind.KILL_SUPERVISOR: "supervisor",
            Kind.KILL_WORKER: "worker",
            Kind.FREEZE_WORKER: "worker",
            Kind.FREEZE_NODE: "all",
        }
        if fault.kind in (Kind.NOTICE, Kind.KILL_NODE):
            for node in victims:
                self._interrupt(node, fault.seconds if fault.kind is Kind.NOTICE else None, at)
            return victims
        pids_of = {node: self._lookout.processes_of(node, part[fault.kind]) for node in victims}
        pids = [pid for found in pids_of.values() for pid in found]
        if fault.kind in (Kind.FREEZE_NODE, Kind.FREEZE_WORKER):
            _signal(pids, signal.SIGSTOP)
            self._later.append((at + fault.seconds, lambda: _signal(pids, signal.SIGCONT)))
        else:
            _signal(pids, signal.SIGKILL)
        return tuple(node for node, found in pids_of.items() if found)

    def _interrupt(self, node: str, notice: float | None, at: float) -> None:
        """What `starling interrupt` does, without waiting for a new Python."""
        NodeFolder(node_folder(self._scene.home, node)).write_interrupt(Interrupt(notice=notice, at=at))
        kind, what = ("hard", "taken at once") if notice is None else ("notice", f"to be taken in {notice:g} s")
        self._journal.write(
            EventKind.INTERRUPT, node, f"rehearsed interruption: {what}", at=at, kind=kind, seconds=notice or 0.0
        )

    def _open_window(self, fault: Fault) -> None:
        assert fault.trouble is not None
        window = (fault.trouble, fault.share)
        self._windows.append(window)
        self._scene.trouble.set(self._windows)
        self._later.append((time.time() + fault.seconds, lambda: self._close_window(window)))

    def _close_window(self, window: Window) -> None:
        self._windows.remove(window)
        self._scene.trouble.set(self._windows)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it ended between the look and the signal
