"""What the training processes of a group have noted about themselves (`benchmarks/recovery_job/training.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of one process."""

    at: float
    """Epoch seconds."""
    world: int
    rank: int
    what: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A set of processes that have completed a step together."""

    pids: tuple[int, ...]
    """In rank order."""
    since: float
    """When the last of them had completed its first step in it."""


def read(folder: Path) -> list[Entry]:
    """All diaries; a line that is being written is left out."""
    return [
        Entry(at=float(at), world=int(world), rank=int(rank), what=what, pid=int(path.name))
        for path in folder.iterdir()
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
        for at, world, rank, what in [line.split()]
    ]


def world_of(entries: Sequence[Entry], size: int, after: float) -> World | None:
    """The first world of this size all of whose ranks have completed a step after a time; None: not yet."""
    first: dict[int, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.at):
        if entry.what == "step" and entry.world == size and entry.at > after:
            first.setdefault(entry.rank, entry)
    if len(first) < size:
        return None
    return World(pids=tuple(first[rank].pid for rank in range(size)), since=max(e.at for e in first.values()))


def latest(entries: Sequence[Entry], what: str, pids: Sequence[int], after: float = 0.0) -> float | None:
    """When the last of these processes first did this; None if one has not."""
    firsts = [
        min((e.at for e in entries if e.pid == p and e.what == what and e.at > after), default=None) for p in pids
    ]
    known = [first for first in firsts if first is not None]
    return max(known) if known and len(known) == len(firsts) else None
