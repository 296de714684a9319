"""Provider of local nodes: each is a set of real processes with a folder under $STARLING_HOME/nodes.

Everything is found through files, locks and process markers; no state lives in this object, so any number of
commands may use any number of providers over the same folder at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ProviderError
from starling.infra.home import node_folder, starling_home
from starling.infra.processes import HOME, MARKER, kill_all, marks_by_pid
from starling.infra.providers.base import Launched, Machine, Pace
from starling.infra.providers.local.folder import Ended, Interrupt, Launch, NodeFolder, NodeLock
from starling.infra.providers.local.machine import ZONE, instance_id
from starling.infra.records import Market, NodeIntent, Offer

LAUNCH_SECONDS = 60.0
"""A launch that is not under way after this long has failed."""
END_SECONDS = 3.0
"""How long `terminate` lets the machine process end the node before it does so itself."""

_log = logging.getLogger(__name__)


class LocalProvider:
    """Sells this computer's processes as nodes. Linux only."""

    name = "local"
    pace = Pace(parallel_launches=4)

    def __init__(
        self,
        *,
        price_per_hour: float = 0.0,
        home: Path | None = None,
        store_uri: str | None = None,
        agent_options: Sequence[str] = (),
        address: str = "127.0.0.1",
        place: str = "local",
        clock: Clock | None = None,
    ) -> None:
        """`home` defaults to $STARLING_HOME. With `store_uri`, `list` shows the nodes of that store only, so that runs
        of one name in two stores do not meet. `agent_options` are added to the agents' command line. `address` is where
        other machines reach this one, if they do; `place` begins the machines' ids."""
        if sys.platform != "linux":
            raise ProviderError(f"local nodes need Linux; this is {sys.platform}. Use another provider from here")
        self._price = price_per_hour
        self._home = (home or starling_home()).resolve()
        self._store_uri = store_uri
        self._agent_options = tuple(agent_options)
        self._address = address
        self._place = place
        self._clock = clock or SystemClock()

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        """One offer: this computer, at the price given; its GPUs are not counted."""
        return [
            Offer(
                provider=self.name,
                instance_type="local",
                zone=ZONE,
                market=Market(market),
                price_per_hour=self._price,
                gpus=gpus,
            )
        ]

    def launch(self, intent: NodeIntent, store_uri: str) -> Launched:
        folder = self._folder(intent.node)
        self._make_room(folder, store_uri)
        if folder.machine() is None and folder.ended() is None:  # else it has started before: never a second time
            folder.write_launch(self._launch_of(intent, store_uri))
            self._start(folder)
        machine, launch = folder.machine(), folder.launch() or self._launch_of(intent, store_uri)
        at = machine.launched_at if machine is not None else self._clock.now()
        return Launched(instance_id=instance_id(launch), offer=intent.offer, at=at)

    def list(self, run: str | None = None) -> list[Machine]:
        pids = self._pids()
        folders = sorted((self._home / "nodes").glob("[!.]*" if run is None else f"{run}.*"))
        seen = (self._look(NodeFolder(path), pids.get(path.name, ())) for path in folders)
        return [machine for machine in seen if machine is not None]

    def terminate(self, nodes: Sequence[str]) -> None:
        """Returns when nothing of the nodes is left; what a machine process does not end in time is killed here."""
        there = [folder for node in nodes if (folder := self._folder(node)).path.exists()]
        for folder in there:
            folder.terminate_file.touch()
        for folder in there:
            self._wait_until_free(folder)
            kill_all(folder.marks)
            self._close(folder, "terminated")

    def interrupt(self, node: str, notice: float | None) -> None:
        folder = self._living(node)
        folder.write_interrupt(Interrupt(notice=notice, at=self._clock.now()))

    def recommend_rebalance(self, node: str) -> None:
        """Rehearse a rebalance recommendation; nothing is taken."""
        self._living(node).write_rebalance(self._clock.now())

    def forget(self, node: str) -> None:
        folder = self._folder(node)
        if folder.ended() is None:
            return
        self._wait_until_free(folder)  # the machine process may be on its last lines
        aside = folder.path.with_name(f".{node}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            folder.path.rename(aside)
            shutil.rmtree(aside)

    def close(self, run: str) -> None:
        """Nothing is made for a run as a whole."""

    def _folder(self, node: str) -> NodeFolder:
        return NodeFolder(node_folder(self._home, node))

    def _launch_of(self, intent: NodeIntent, store_uri: str) -> Launch:
        return Launch(
            intent=intent,
            store_uri=store_uri,
            agent_options=self._agent_options,
            address=self._address,
            instance_id=f"{self._place}-{intent.node}",
        )

    def _living(self, node: str) -> NodeFolder:
        folder = self._folder(node)
        if not folder.locked():
            raise ProviderError(f"local node {node} is not running, so it cannot be interrupted")
        return folder

    def _make_room(self, folder: NodeFolder, store_uri: str) -> None:
        """The folder, empty or this very node's; an ended node of the same id in another store gives way."""
        known = folder.launch()
        if known is not None and known.store_uri != store_uri:
            if folder.locked():
                raise ProviderError(
                    f"a local node {folder.node} of another store ({known.store_uri}) is running in {folder.path};"
                    " give the run another name, or use another STARLING_HOME"
                )
            self._sweep(folder)
            self.forget(folder.node)
        try:
            folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ProviderError(f"the folder of a local node cannot be made: {error}") from error

    def _start(self, folder: NodeFolder) -> None:
        """Returns once the node is on, or once the starter has found that another one was quicker."""
        environment = {**os.environ, **folder.marks, "PYTHONPATH": _absolute(os.environ.get("PYTHONPATH", ""))}
        command = [sys.executable, "-m", "starling.infra.providers.local.machine", str(folder.path)]
        try:
            subprocess.run(
                command,
                cwd=folder.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=LAUNCH_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise ProviderError(f"local node {folder.node} could not be started: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise ProviderError(f"local node {folder.node} was not up after {LAUNCH_SECONDS:.0f} s") from error

    def _pids(self) -> dict[str, tuple[int, ...]]:
        pids: dict[str, tuple[int, ...]] = {}
        for pid, marks in sorted(marks_by_pid((MARKER, HOME)).items()):
            if marks.get(HOME) == str(self._home) and MARKER in marks:
                pids[marks[MARKER]] = (*pids.get(marks[MARKER], ()), pid)
        return pids

    def _look(self, folder: NodeFolder, pids: tuple[int, ...]) -> Machine | None:
        """None for a folder of another store, and for a node that has not started (yet)."""
        launch = folder.launch()
        if launch is None or (self._store_uri is not None and launch.store_uri != self._store_uri):
            return None
        machine = folder.machine()
        alive = folder.locked()  # looked at after machine.json: free now means that a started node is gone
        if machine is not None and not alive:
            self._sweep(folder)
        ended = None if alive else folder.ended()  # ended means that its machine process is gone as well
        if machine is None and ended is None:
            return None
        return Machine(
            node=folder.node,
            instance_id=instance_id(launch),
            alive=alive,
            launched_at=machine.launched_at if machine else None,
            ended_at=ended.at if ended else None,
            ended_reason=ended.reason if ended else None,
            address=launch.address,
            pids=pids if alive else (),
        )

    def _sweep(self, folder: NodeFolder) -> None:
        """After the machine process was killed: leave nothing of the node, and say that it has ended."""
        if folder.ended() is None:
            killed = kill_all(folder.marks)
            _log.warning("local node %s lost its machine process; %d processes swept", folder.node, killed)
            self._close(folder, "machine lost")

    def _wait_until_free(self, folder: NodeFolder) -> None:
        give_up_at = self._clock.now() + END_SECONDS
        while folder.locked() and self._clock.now() < give_up_at:
            self._clock.sleep(0.05)

    def _close(self, folder: NodeFolder, reason: str) -> None:
        """Write ended.json if the machine process could not; whoever starts later finds it and leaves."""
        lock = NodeLock(folder)
        if lock.take():
            try:
                if folder.ended() is None:
                    folder.write_ended(Ended(at=self._clock.now(), reason=reason))
            finally:
                lock.free()


def _absolute(python_path: str) -> str:
    """Nodes run in their own folder, so a relative PYTHONPATH of the launching command would lead nowhere."""
    return os.pathsep.join(str(Path(entry).resolve()) for entry in python_path.split(os.pathsep) if entry)
