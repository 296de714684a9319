"""A group of nodes that trains, whatever system keeps it together."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.recovery_groups import diaries
from benchmarks.recovery_groups.diaries import World

START_SECONDS = 180.0
"""A group that does not train after so long is broken."""
ENDED_SECONDS = 5.0
"""A job that has ended is not noticed before so long."""
POLL = 0.1
"""Seconds between two looks at the diaries; times come from the diaries, so this adds nothing to them."""


class NotTraining(Exception):
    """The group did not get to train with all its nodes in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What one loss led to."""

    seconds: float | None
    """From the kill to the time when all survivors had completed a step together; None: not within the limit."""
    ended: bool = False
    """The job was over, not just slow: no node was left."""
    phases: Mapping[str, float] | None = None
    """Seconds of each part, in order; together they make `seconds`."""


class Group(ABC):
    """`size` nodes. Use as a context manager: nothing is left of it at the end."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.diaries = folder / "diaries"
        self.diaries.mkdir(parents=True)
        self.world: World | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.await_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start all nodes."""

    @abstractmethod
    def stop(self) -> None:
        """End everything."""

    @abstractmethod
    def roots(self) -> dict[str, int]:
        """Living nodes: name -> pid of the process from which all others of the node descend."""

    @abstractmethod
    def phases(self, killed_at: float, world: World) -> dict[str, float]:
        """Where the time from a kill to the first step went."""

    def hosting_node(self) -> str | None:
        """The node whose loss takes the rendezvous with it; None: there is none."""
        return None

    def await_whole(self) -> None:
        """Until all nodes train together. Raises NotTraining."""
        began = time.time()
        while self.world is None or len(self.world.pids) < self.size or not self._lives(self.world):
            if time.time() - began > START_SECONDS:
                raise NotTraining(f"{self.size} nodes did not train together within {START_SECONDS:.0f} s")
            time.sleep(POLL)
            self.world = diaries.world_of(diaries.read(self.diaries), self.size, began)

    def node_of_rank(self, rank: int) -> str:
        assert self.world is not None
        parents = {self.world.pids[rank], *(p.pid for p in psutil.Process(self.world.pids[rank]).parents())}
        return next(name for name, root in self.roots().items() if root in parents)

    def lose(self, victims: Sequence[str], limit: float, chance: random.Random) -> Loss:
        """Kill nodes as their machines would die, all processes at the same instant, at a random moment."""
        time.sleep(chance.uniform(0.5, 1.5))
        roots = self.roots()
        pids = with_descendants([roots[name] for name in victims])
        left = self.size - len(victims)
        killed_at = time.time()
        kill(pids)
        while (world := diaries.world_of(diaries.read(self.diaries), left, killed_at)) is None:
            self.world = None
            waited = time.time() - killed_at
            if waited > ENDED_SECONDS and not self.roots():  # no sooner: looking costs time on the cores that recover
                return Loss(seconds=None, ended=True)
            if waited > limit:
                return Loss(seconds=None)
            time.sleep(POLL)
        self.world = world
        return Loss(seconds=world.since - killed_at, phases=self.phases(killed_at, world))

    def _lives(self, world: World) -> bool:
        return all(psutil.pid_exists(pid) for pid in world.pids)


def with_descendants(roots: Iterable[int]) -> list[int]:
    """Pids of these processes and everything below them."""
    processes = [psutil.Process(root) for root in roots]
    return [process.pid for root in processes for process in [root, *root.children(recursive=True)]]


def kill(pids: Iterable[int]) -> None:
    """SIGKILL all, in far less than a millisecond each; those who go down with an earlier one are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def differences(marks: Mapping[str, float | None], began: float) -> dict[str, float]:
    """Times at which parts ended, in order -> seconds of each part. A part whose end is unknown goes to the next."""
    parts: dict[str, float] = {}
    before = began
    for name, at in marks.items():
        if at is not None:
            parts[name] = max(0.0, at - before)
            before = max(before, at)
    return parts
