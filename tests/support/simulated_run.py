"""A run in simulated time: real store, real decisions, the product's fake provider, and agents that only pretend.

The controller under test sees its store and provider through `Watched`, which checks the rules that must hold at
every single call, and can kill the controller before any of its side effects.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from starling.infra import layout
from starling.infra.clock import FakeClock
from starling.infra.errors import ObjectNotFound
from starling.infra.providers.fake import FakeProvider
from starling.infra.records import (
    NodeEnd,
    NodeIntent,
    NodeState,
    NodeStatus,
    Notice,
    NoticeKind,
    Progress,
    RunRecord,
)
from starling.infra.store import Store, open_store
from starling.orchestrator.controller import Controller
from starling.orchestrator.reading import read_verdict
from starling.orchestrator.runs import create_run
from starling.orchestrator.spec import Spec

BOOT_SECONDS = 3.0
CHANGES = ("create", "replace", "put", "delete", "launch", "terminate", "forget", "close")


@contextlib.contextmanager
def quick_store() -> Iterator[Store]:
    """A folder store that need not wait for a disk, where the system has such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield open_store(folder)


class Killed(BaseException):
    """The controller's process dies here."""


class Process:
    """One controller's: when it dies, so do all its threads."""

    def __init__(self) -> None:
        self.dead = False


class Watched:
    """Stands between a controller and its store or provider."""

    def __init__(self, real: Any, world: SimulatedRun, process: Process) -> None:
        self._real = real
        self._world = world
        self._process = process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in CHANGES:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._process.dead:
                raise Killed
            self._world.before_change(name, args, self._process)
            return found(*args, **kwargs)

        return call


class SimulatedRun:
    """One run, its nodes, and as many controllers as a test likes."""

    def __init__(self, store: Store, spec: Spec, *, price: float = 1.0, **provider: Any) -> None:
        """`provider`: what else the FakeProvider is to be made with."""
        self.clock = FakeClock(1_000_000.0)
        self.store = store
        self.provider = FakeProvider(self.clock, price_per_hour=price, **provider)
        self.run = create_run(store, spec, name="sim", clock=self.clock).run
        self.spec = spec
        self.hung: set[str] = set()
        """Machines that run, but whose agents say nothing any more."""
        self.unfit: set[str] = set()
        """Nodes whose agents find their machine unfit."""
        self.broken = False
        """Agents give up as soon as they have booted."""
        self.intruders: dict[int, Controller] = {}
        """Before how many more side effects of the one, another controller makes a whole pass."""
        self.lives: int | None = None
        """How many more side effects the controller has before it dies."""
        self.deaf: set[str] = set()
        """Nodes whose agents do not hear that they are to be taken."""
        self.deaf_to_leave: set[str] = set()
        """Nodes that do not leave although another one takes over."""

    def controller(self) -> Controller:
        """A fresh process of it, which remembers nothing."""
        process = Process()
        store, provider = Watched(self.store, self, process), Watched(self.provider, self, process)
        return Controller(store, provider, self.run, self.clock, incarnation=self.record().incarnation)

    def before_change(self, name: str, args: tuple[Any, ...], process: Process) -> None:
        self.intruders = {left - 1: other for left, other in self.intruders.items()}
        if (intruder := self.intruders.pop(-1, None)) is not None:
            intruder.one_pass()
        if self.lives is not None:
            if self.lives == 0:
                self.lives = None
                process.dead = True
                raise Killed
            self.lives -= 1
        if name == "launch":
            assert self.intent(args[0].node).node == args[0].node, "launched without a committed intent"
        if name == "terminate":
            words = [self.intent(node).terminate for node in args[0]]
            assert None not in words, "released without a committed word"

    def live(self, controller: Controller, seconds: float) -> Controller:
        """Let time pass with this controller, and after its death with its successor."""
        end = self.clock.now() + seconds
        finished = False
        while self.clock.now() < end and not finished:
            self.agents_act()
            try:
                finished = controller.one_pass() is None
            except Killed:
                controller = self.controller()
            self.check()
            self.clock.advance(1.0)
        return controller

    def live_until(self, controller: Controller, settled: Callable[[], bool], *, at_most: float) -> Controller:
        """`live` until this holds; fails if it does not within so many seconds."""
        end = self.clock.now() + at_most
        while not settled():
            assert self.clock.now() < end, f"not settled within {at_most:g} s"
            controller = self.live(controller, 5)
        return controller

    def check(self) -> None:
        """What must hold at every moment."""
        started = self.provider.started
        assert len(started) == len(set(started)), "a node was started twice"
        slots: dict[int, list[str]] = {}
        for node in self.provider.alive:
            if node not in self._going() and node not in self.hung and not self._released(node):
                slots.setdefault(int(node.split(".")[1]), []).append(node)
        assert all(len(nodes) == 1 for nodes in slots.values()), f"a slot is filled twice: {slots}"
        assert set(slots) <= set(range(self.spec.nodes.max)), "a slot too many"

    def _going(self) -> set[str]:
        """Nodes that are known to go, by whichever source."""
        return {*self.provider.notices, *(m.node for m in self.provider.machines if m.notice is not None)}

    def intent(self, node: str) -> NodeIntent:
        return NodeIntent.from_bytes(self.store.get(layout.intent(node)).data)

    def status(self, node: str) -> NodeStatus | None:
        try:
            return NodeStatus.from_bytes(self.store.get(layout.status(node)).data)
        except ObjectNotFound:
            return None

    def record(self) -> RunRecord:
        return RunRecord.from_bytes(self.store.get(layout.run_record(self.run)).data)

    def working(self) -> list[str]:
        """Nodes that train."""
        statuses = [self.status(node) for node in self.provider.alive if node not in self.hung]
        return [status.node for status in statuses if status is not None and status.state is NodeState.TRAINING]

    def agents_act(self) -> None:
        """What every agent that is not hung does within a second."""
        record = self.record()
        over = read_verdict(self.store, self.run, record.incarnation) is not None
        for machine in self.provider.machines:
            if machine.alive and machine.node not in self.hung:
                self._agent_acts(machine.node, machine.launched_at or 0.0, over or record.stop is not None)

    def _agent_acts(self, node: str, launched_at: float, told_to_end: bool) -> None:
        now = self.clock.now()
        try:
            intent = self.intent(node)
        except ObjectNotFound:
            return
        before = self.status(node)
        notice = before.notice if before else None
        if notice is None and node in self.provider.notices and node not in self.deaf:
            effect = self.provider.notices[node]
            notice = Notice(id=node, kind=NoticeKind.INTERRUPTION, seen_at=now, takes_effect_at=effect)
        up = now >= launched_at + BOOT_SECONDS
        reason = self._end_reason(intent, told_to_end, up, now)
        training = up and reason is None and notice is None
        status = NodeStatus(
            node=node,
            run=self.run,
            state=NodeState.ENDED if reason else NodeState.LEAVING if notice else _working_state(training),
            at=now,
            booted_at=launched_at,
            address="127.0.0.1",
            instance_id=f"i-{node}",
            notice=notice,
            progress=_progress(now) if training else (before.progress if before else None),
            ended=NodeEnd(at=now, reason=reason) if reason else None,
            unfit="no such instruction" if node in self.unfit else None,
        )
        self.store.put(layout.status(node), status.to_bytes())
        if reason:
            self.provider.end(node, reason)

    def _end_reason(self, intent: NodeIntent, told_to_end: bool, up: bool, now: float) -> str | None:
        if intent.node in self.unfit:
            return "unfit: no such instruction"
        if self.broken and up:
            return "supervisor crashed"
        if intent.authorised_until is not None and now >= intent.authorised_until:
            return "authorised time is over"
        if intent.leave is not None and intent.node not in self.deaf_to_leave:
            return intent.leave.reason
        return "the run ends" if told_to_end or intent.terminate else None

    def _released(self, node: str) -> bool:
        try:
            return self.intent(node).terminate is not None
        except ObjectNotFound:
            return False


def _working_state(training: bool) -> NodeState:
    return NodeState.TRAINING if training else NodeState.BOOTING


def _progress(now: float) -> Progress:
    return Progress(at=now, step=1, total_steps=100, epoch=0, round=0, world_size=1, rank=0)
