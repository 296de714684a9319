"""Carries out one errand on a host: a thin layer over the provider of local nodes, whose home is the host's own.

What it adds to local nodes: one node at a time, and a memory of launches that were refused, so that a controller which
slept does not start a node whose next attempt runs elsewhere by now.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starling.infra.bootstrap.interface import talking_interface
from starling.infra.errors import StarlingError
from starling.infra.providers.local.folder import NodeFolder
from starling.infra.providers.local.provider import LocalProvider
from starling.infra.providers.ssh.on_host import leftovers
from starling.infra.providers.ssh.on_host.arrival import tell
from starling.infra.records import NodeIntent


def main() -> int:
    errand = json.loads(sys.argv[1])
    home = Path(os.environ["STARLING_HOME"])
    answers: dict[str, Callable[[HostNodes, dict[str, Any]], dict[str, Any]]] = {
        "list": HostNodes.look,
        "launch": HostNodes.launch,
        "terminate": HostNodes.terminate,
        "interrupt": HostNodes.interrupt,
        "forget": HostNodes.forget,
        "close": HostNodes.close,
    }
    try:
        tell(answers[errand["do"]](HostNodes(home, errand), errand))
    except StarlingError as error:
        tell({"failed": str(error)})
    return 0


class HostNodes:
    """The nodes of this host, under its home (`arrival.home`)."""

    def __init__(self, home: Path, errand: dict[str, Any]) -> None:
        self._home = home
        self._nodes = home / "nodes"
        self._provider = LocalProvider(
            home=home,
            agent_options=errand.get("agent_options", ()),
            address=errand.get("address", ""),
            place=errand.get("place", ""),
        )

    def look(self, errand: dict[str, Any]) -> dict[str, Any]:
        """Machines of one run (or all), of one store (or all), and which node, whosever it is, has the host now."""
        machines = self._provider.list()
        found = [machine for machine in machines if self._asked_for(machine.node, errand)]
        return {
            "machines": [asdict(machine) for machine in found],
            "busy": next((machine.node for machine in machines if machine.alive), None),
            "nodes": str(self._nodes),
        }

    def launch(self, errand: dict[str, Any]) -> dict[str, Any]:
        """The node's machine, or {"refused": why} if this attempt can never succeed here."""
        intent, store_uri = NodeIntent.model_validate(errand["intent"]), str(errand["store_uri"])
        _name_interface(errand["address"])
        with self._one_at_a_time():
            if not self._started(intent.node, store_uri):
                if (refused := self._refusal(intent, store_uri)) is not None:
                    return {"refused": refused}
                leftovers.note_use(self._home, intent.node, errand["package"])
                self._clear_old()
            launched = self._provider.launch(intent, store_uri)
        return {"instance_id": launched.instance_id, "at": launched.at}

    def terminate(self, errand: dict[str, Any]) -> dict[str, Any]:
        known = self._known(errand)
        self._provider.terminate(known)
        return {"known": known}

    def interrupt(self, errand: dict[str, Any]) -> dict[str, Any]:
        known = self._known(errand)
        for node in known:
            self._provider.interrupt(node, errand["notice"])
        return {"known": known}

    def forget(self, errand: dict[str, Any]) -> dict[str, Any]:
        known = self._known(errand)
        for node in known:
            self._provider.forget(node)
        return {"known": known}

    def close(self, errand: dict[str, Any]) -> dict[str, Any]:
        """No launch of this run, in the store that is named, will be repeated any more."""
        store_uri = errand.get("store_uri")
        with self._one_at_a_time():
            every = self._home.glob("refused/*")
            for folder in every if store_uri is None else [self._refusals(store_uri)]:
                for refused in folder.glob(f"{errand['run']}.*"):
                    refused.unlink(missing_ok=True)
                with suppress(OSError):  # other runs of this store keep theirs, or there never was one
                    folder.rmdir()
        return {}

    def _refusals(self, store_uri: str) -> Path:
        return self._home / "refused" / hashlib.sha256(store_uri.encode()).hexdigest()[:16]

    def _known(self, errand: dict[str, Any]) -> list[str]:
        """Which of the errand's nodes are, or were, here and of its store."""
        return [node for node in errand["nodes"] if (self._nodes / node).is_dir() and self._asked_for(node, errand)]

    def _asked_for(self, node: str, errand: dict[str, Any]) -> bool:
        run, store_uri = errand.get("run"), errand.get("store_uri")
        launch = NodeFolder(self._nodes / node).launch()
        right_store = store_uri is None or (launch is not None and launch.store_uri == store_uri)
        return right_store and (run is None or node.startswith(f"{run}."))

    def _started(self, node: str, store_uri: str) -> bool:
        """This very node: one of the same id may be left of another store's run."""
        folder = NodeFolder(self._nodes / node)
        launch = folder.launch()
        if launch is None or launch.store_uri != store_uri:
            return False
        return folder.machine() is not None or folder.ended() is not None

    def _refusal(self, intent: NodeIntent, store_uri: str) -> str | None:
        """Why this attempt is refused: now, and from now on whatever changes."""
        memory = self._refusals(store_uri) / f"{intent.node}.{intent.attempt}"
        if memory.exists():
            return memory.read_text()
        busy = next((machine.node for machine in self._provider.list() if machine.alive), None)
        if busy is None:
            return None
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(f"node {busy} runs on it")
        return memory.read_text()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Launches on this host follow one another, whoever asks for them."""
        with (self._home / "launch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _clear_old(self) -> None:
        """What nobody has cleared away, or used, in a week takes room only."""
        then = time.time() - leftovers.KEPT_SECONDS
        for machine in self._provider.list():
            if not machine.alive and machine.ended_at is not None and machine.ended_at < then:
                self._provider.forget(machine.node)
        leftovers.clear(self._home, then)


def _name_interface(address: str) -> None:
    """Have gloo and NCCL talk over the interface with this address, or the one that leads out. Left alone, gloo takes
    what the host's own name means to itself, which on many systems is the loopback interface."""
    try:
        number = socket.gethostbyname(address)
    except OSError:
        number = ""  # others may know it by a name that it does not know itself
    if number != address and number.startswith("127."):
        number = ""
    if (interface := talking_interface(number)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


if __name__ == "__main__":
    sys.exit(main())
