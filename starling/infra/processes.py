"""Processes of a node: tie them to their parent, find every one of them, and leave none alive. Linux only.

A node's processes do not form one process group (TorchElastic starts workers in sessions of their own, users' code
may daemonise), so they are found by a marker in their environment and by descent:

* `MARKER` (and `HOME`) is in the environment of everything a node starts; a fork inherits it, and so does an exec.
* Whoever empties its environment is still a descendant of the node's machine process, because that one is a child
  subreaper: orphans come back to it instead of going to init.
* Whoever survives the machine process without a marker is reached by `die_with_parent` only, which each of our
  processes calls first thing in `main`.

`preexec_fn` would be the other way to set the parent-death signal; it is not safe in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starling.infra.errors import StarlingError

MARKER = "STARLING_NODE"
"""Environment variable that every process of a node carries; its value is the node's id."""
HOME = "STARLING_HOME"
"""Root of everything local. With MARKER it tells apart nodes of the same id under two roots."""
SHARED_MACHINE = "STARLING_SHARED_MACHINE"
"""Set for nodes that are processes of one machine: each sees all of its GPUs, and so do the others."""
PARENT = "STARLING_PARENT"
"""Pid of the parent that a child should die with, handed over at its start."""

KILL_SECONDS = 30.0
"""How long `kill_all` keeps trying. Only processes stuck in the kernel outlive a SIGKILL for this long."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SETTLE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A live process, told apart from a later one of the same pid by its start time."""

    pid: int
    parent: int
    started: int
    """Clock ticks since boot."""


def die_with_parent(expected: int | None = None) -> None:
    """Have the kernel kill this process (SIGKILL) when its parent dies; exit now if the parent is dead already.

    `expected` is the parent's pid; by default it is taken out of the environment (`PARENT`), so that this process'
    own children do not inherit it. The kernel watches the *thread* that started this process: start such children
    from a thread that lives as long as its process.
    """
    handed_over = os.environ.pop(PARENT, None)
    if expected is None and handed_over is not None:
        expected = int(handed_over)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if expected is not None and os.getppid() != expected:
        sys.exit(f"parent {expected} died before its child {os.getpid()} was up")


def become_subreaper() -> None:
    """Adopt orphaned descendants, whatever session they are in. The caller must then reap them (`reap`)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap() -> dict[int, int]:
    """Collect all children that have ended, without waiting: pid -> exit code (negative: the signal)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(wait_status)


def marked(marks: Mapping[str, str], *, below: int | None = None) -> list[Process]:
    """All live processes that carry every one of `marks` in their environment, or descend from one that does, or
    from the process `below`; the caller itself and `below` are left out."""
    living = {process.pid: process for process in _living()}
    roots = {pid for pid in living if _carries(pid, marks)}
    family = _with_descendants(living.values(), roots | ({below} if below is not None else set()))
    return [living[pid] for pid in sorted(family - {os.getpid(), below}) if pid in living]


def marks_by_pid(names: Collection[str]) -> dict[int, dict[str, str]]:
    """The values of these environment variables in every live process that has at least one of them."""
    found = {process.pid: _marks(process.pid, names) for process in _living()}
    return {pid: marks for pid, marks in found.items() if marks}


def kill_all(marks: Mapping[str, str], *, below: int | None = None, timeout: float = KILL_SECONDS) -> int:
    """SIGKILL what `marked` finds until two scans in a row find nothing; return how many processes were killed.

    Scanning again catches children that were forked while we looked. Raises StarlingError if something is still
    alive after `timeout` seconds.
    """
    give_up_at = time.monotonic() + timeout
    killed: set[tuple[int, int]] = set()
    quiet = 0
    while quiet < 2:
        found = marked(marks, below=below)
        for process in found:
            _kill(process)
            killed.add((process.pid, process.started))
        quiet = 0 if found else quiet + 1
        if found and time.monotonic() > give_up_at:
            raise StarlingError(f"processes {[p.pid for p in found]} are still alive {timeout:.0f} s after SIGKILL")
        time.sleep(_SETTLE_SECONDS)
    return len(killed)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        raise StarlingError(f"local nodes need Linux (process control by prctl); this is {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")


def _living() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := _read(int(entry))) is not None:
            yield process


def _read(pid: int) -> Process | None:
    """One process from /proc; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in brackets, which may hold anything; what follows the last bracket is regular.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid=pid, parent=int(fields[1]), started=int(fields[19]))


def _carries(pid: int, marks: Mapping[str, str]) -> bool:
    return bool(marks) and _marks(pid, marks) == dict(marks)


def _marks(pid: int, names: Collection[str]) -> dict[str, str]:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # Gone, or somebody else's: another user's process is never part of a node of ours.
        return {}
    pairs = (entry.partition(b"=") for entry in environ.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if os.fsdecode(name) in names}


def _with_descendants(living: Collection[Process], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in living:
        children.setdefault(process.parent, []).append(process.pid)
    family: set[int] = set()
    to_visit = list(roots)
    while to_visit:
        pid = to_visit.pop()
        if pid not in family:
            family.add(pid)
            to_visit += children.get(pid, [])
    return family


def _kill(process: Process) -> None:
    """SIGKILL through a pid file descriptor, so that a reused pid cannot be hit."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = _read(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended between the look and the signal, which is what we want
    finally:
        os.close(handle)
