"""A home, a store and a local provider for tests that run real nodes; leaves no process behind."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from starling.infra import layout
from starling.infra.journal import read_events
from starling.infra.processes import HOME, kill_all, marked
from starling.infra.providers.base import Machine
from starling.infra.providers.local.folder import NodeFolder
from starling.infra.providers.local.provider import LocalProvider
from starling.infra.records import Event, Market, NodeIntent, NodeStatus, Offer, RunRecord
from starling.infra.store import open_store

RUN = "rehearsal"
SUPPORT = Path(__file__).parents[2] / "support"
OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)
PATIENCE = 45.0
"""Seconds that anything may take on a busy machine. Less than a drain has: nothing may pass because its limit came."""


class LocalNodes:
    """Launches nodes of one run, with the stand-in supervisor, and looks at them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = open_store(str(home / "store"))
        self.provider = self.another_provider()
        self.store.create(layout.run_record(RUN), RunRecord(run=RUN, created_at=time.time()).to_bytes())
        self.write_spec()

    def another_provider(self) -> LocalProvider:
        options = ("--supervisor-module", "stand_in_supervisor")
        return LocalProvider(home=self.home, agent_options=options, store_uri=self.store.uri)

    def write_spec(self, **limits: float) -> None:
        spec = {"nodes": {"gpus_per_node": 0}, "limits": {"stall": 30.0, "idle": 30.0, **limits}}
        self.store.put(layout.spec(RUN, 0), yaml.safe_dump(spec).encode())

    def intent(self, slot: int = 0, **changes: Any) -> NodeIntent:
        """Create (or read) the committed intent of a slot's first node."""
        node = layout.node_id(RUN, slot, 0)
        intent = NodeIntent(
            node=node,
            run=RUN,
            incarnation=0,
            slot=slot,
            generation=0,
            offer=OFFER,
            wanted_at=time.time(),
            authorised_until=None,
        ).but(**changes)
        self.store.put(layout.intent(node), intent.to_bytes())
        return intent

    def launch(self, slot: int = 0, **changes: Any) -> str:
        intent = self.intent(slot, **changes)
        self.provider.launch(intent, self.store.uri)
        return intent.node

    def folder(self, node: str) -> Path:
        return self.home / "nodes" / node

    def machine(self, node: str) -> Machine:
        [found] = [machine for machine in self.provider.list(RUN) if machine.node == node]
        return found

    def status(self, node: str) -> NodeStatus | None:
        key = layout.status(node)
        return NodeStatus.from_bytes(self.store.get(key).data) if list(self.store.list(key)) else None

    def events(self) -> list[Event]:
        return read_events(self.store, RUN)

    def log(self, node: str) -> str:
        return "".join(self.store.get(info.key).data.decode() for info in self.store.list(layout.logs(RUN, node)))

    def step(self, node: str) -> int:
        """Steps completed, as the node's progress.json says."""
        path = self.folder(node) / "work" / RUN / "progress.json"
        return int(yaml.safe_load(path.read_text())["step"]) if path.exists() else 0

    def process(self, node: str, word: str) -> psutil.Process:
        """The node's process whose command line has this word."""
        found = self._with_word(node, word)
        assert found, f"no process of {node} with {word!r} in its command line"
        return found[0]

    def has_another(self, node: str, word: str, before: psutil.Process) -> bool:
        """Whether the node has a process whose command line has this word, and that is not the one before."""
        return any(process != before for process in self._with_word(node, word))

    def processes(self, node: str) -> list[psutil.Process]:
        """All of the node's, but those that have ended meanwhile."""
        found = []
        for pid in self.machine(node).pids:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def left_over(self) -> list[list[str]]:
        """Command lines of all processes under this home."""
        found = []
        for process in marked({HOME: str(self.home)}):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(process.pid).cmdline())
        return found

    def _with_word(self, node: str, word: str) -> list[psutil.Process]:
        return [process for process in self.processes(node) if any(word in part for part in command_line(process))]

    def wait_training(self, node: str) -> None:
        eventually(lambda: self.step(node) > 0, f"{node} trains")

    def wait_ended(self, node: str) -> Machine:
        eventually(lambda: not self.machine(node).alive, f"{node} has ended")
        return self.machine(node)


@contextmanager
def local_nodes(home: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "train") -> Iterator[LocalNodes]:
    """`mode` is what the stand-in supervisor does."""
    monkeypatch.setenv(HOME, str(home))
    monkeypatch.setenv("STAND_IN", mode)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    try:
        yield LocalNodes(home)
    finally:
        kill_all({HOME: str(home)})
        for folder in (home / "nodes").glob("*"):  # of nodes that were not left the time to do it
            shutil.rmtree(NodeFolder(folder).scratch, ignore_errors=True)


def command_line(process: psutil.Process) -> list[str]:
    """Empty if it has ended meanwhile."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def eventually(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait for real processes to get there."""
    give_up_at = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.05)
