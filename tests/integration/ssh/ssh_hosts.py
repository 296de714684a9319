"""Two hosts on the loopback interface: real ssh servers with homes of their own, and real nodes on them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from starling.infra import layout
from starling.infra.clock import SystemClock
from starling.infra.journal import read_events
from starling.infra.processes import HOME, kill_all, marked
from starling.infra.providers.base import Machine
from starling.infra.providers.ssh.hosts import Host, SshChoice
from starling.infra.providers.ssh.provider import SshProvider
from starling.infra.records import Event, EventKind, NodeIntent, NodeStatus, Offer, RunRecord
from starling.infra.store import open_store
from tests.support.ssh_server import SERVERS, make_key, public_key

RUN = "rehearsal"
SUPPORT = Path(__file__).parents[2] / "support"


class LaterClock(SystemClock):
    """Real time, which can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class SshHosts:
    """Two hosts, a store that they share, and a key that opens both."""

    def __init__(self, kind: str, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.key = make_key(folder / "id")
        self.servers = []
        for name in ("a", "b"):
            place, home = folder / name, temporary / name
            place.mkdir()
            home.mkdir()
            self.servers.append(SERVERS[kind](place, home, public_key(self.key), _environment(home)))
        for server in self.servers:
            server.start()
        self.known_hosts = folder / "known_hosts"
        self.trust()
        self.store = open_store(str(folder / "store"))
        self.store.create(layout.run_record(RUN), RunRecord(run=RUN, created_at=time.time()).to_bytes())
        spec = {"nodes": {"gpus_per_node": 0}, "limits": {"stall": 30.0, "idle": 30.0}}
        self.store.put(layout.spec(RUN, 0), yaml.safe_dump(spec).encode())
        self.clock = LaterClock()
        self._providers: list[SshProvider] = []

    def trust(self) -> None:
        """Write both hosts' present keys down."""
        lines = [f"[127.0.0.1]:{server.port} {server.host_key}\n" for server in self.servers]
        self.known_hosts.write_text("".join(lines))

    def hosts(self, **changes: Any) -> tuple[Host, ...]:
        words = {"address": "127.0.0.1", "key": str(self.key), "python": sys.executable, **changes}
        return tuple(Host(**{"port": server.port, **words}) for server in self.servers)

    def provider(self, *, known_hosts: str | None = None, store_uri: str | None = None, **changes: Any) -> SshProvider:
        choice = SshChoice(hosts=self.hosts(**changes), known_hosts=known_hosts or str(self.known_hosts))
        options = ("--supervisor-module", "stand_in_supervisor")
        store_uri = store_uri or self.store.uri
        provider = SshProvider(choice, store_uri=store_uri, agent_options=options, clock=self.clock)
        self._providers.append(provider)
        return provider

    def root(self, index: int) -> Path:
        """Home of the nodes on a host."""
        return self.servers[index].home / ".starling" / "node" / "hosts" / socket.gethostname()

    def intent(self, slot: int, candidates: list[Offer], **changes: Any) -> NodeIntent:
        """Commit the intent of a slot's first node."""
        intent = NodeIntent(
            node=layout.node_id(RUN, slot, 0),
            run=RUN,
            incarnation=0,
            slot=slot,
            generation=0,
            offer=candidates[0],
            candidates=tuple(candidates),
            wanted_at=time.time(),
            authorised_until=None,
        ).but(**changes)
        self.store.put(layout.intent(intent.node), intent.to_bytes())
        return intent

    def starts(self, node: str) -> int:
        """How often an agent of this node came up."""
        return sum(event.kind is EventKind.NODE_UP and event.subject == node for event in self.events())

    def events(self) -> list[Event]:
        return read_events(self.store, RUN)

    def status(self, node: str) -> NodeStatus | None:
        key = layout.status(node)
        return NodeStatus.from_bytes(self.store.get(key).data) if list(self.store.list(key)) else None

    def wait_training(self, node: str) -> None:
        eventually(lambda: (status := self.status(node)) is not None and status.progress is not None, f"{node} trains")

    def wait_ended(self, provider: SshProvider, node: str) -> Machine:
        eventually(lambda: not machine_of(provider, node).alive, f"{node} has ended")
        return machine_of(provider, node)

    def left_over(self) -> list[int]:
        """Processes of nodes on either host."""
        return [process.pid for index in (0, 1) for process in marked({HOME: str(self.root(index))})]

    def close(self) -> None:
        for provider in self._providers:
            provider.disconnect()
        for server in self.servers:
            server.close()
        for index in (0, 1):
            kill_all({HOME: str(self.root(index))})


def machine_of(provider: SshProvider, node: str) -> Machine:
    [found] = [machine for machine in provider.list(RUN) if machine.node == node]
    return found


@contextmanager
def ssh_hosts(kind: str, folder: Path) -> Iterator[SshHosts]:
    temporary = Path(tempfile.mkdtemp(prefix="ssh-"))  # short: sockets lie below it
    hosts = SshHosts(kind, folder, temporary)
    try:
        yield hosts
    finally:
        hosts.close()
        shutil.rmtree(temporary)


def _environment(home: Path) -> dict[str, str]:
    """What a login on the host finds."""
    temporary = home / "tmp"
    temporary.mkdir()
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SUPPORT), "STAND_IN": "train", "TMPDIR": str(temporary)}


def eventually(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Wait for real processes to get there."""
    give_up_at = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.05)
