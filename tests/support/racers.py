"""Processes that race for objects of one store, started from a clean process that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any, Protocol

from starling.infra.errors import ObjectExists, StoreError, VersionConflict
from starling.infra.store import Store, Versioned, open_store

PATIENCE = 180.0


class Barrier(Protocol):
    """A threading.Barrier or one of multiprocessing."""

    def wait(self, timeout: float | None = None) -> int: ...


def create_each(store: Store, racer: int, rounds: int, barrier: Barrier) -> list[int]:
    """Try to create one object per round, all racers at the same time; return the rounds that were won."""
    won = []
    for number in range(rounds):
        barrier.wait(PATIENCE)
        try:
            store.create(f"race/{number}", f"racer {racer}".encode())
            won.append(number)
        except ObjectExists:
            continue
    return won


def increment(store: Store, racer: int, times: int, barrier: Barrier) -> int:
    """Count one up in the object `counter`, `times` times; return how many attempts lost.

    Everybody reads before anybody of that time's first attempts writes, so all but one of them must lose.
    """
    lost = 0
    for number in range(times):
        found = store.get("counter")
        barrier.wait(PATIENCE)
        while not _counted(store, found, f"by {racer}, its {number}th"):
            lost += 1
            found = store.get("counter")
    return lost


def _counted(store: Store, found: Versioned, note: str) -> bool:
    count = int(found.data.split()[0]) + 1
    try:
        store.replace("counter", f"{count} {note}".encode(), found.version)
    except VersionConflict:
        return False
    return True


def in_processes(uri: str, task: Callable[[Store, int, int, Barrier], Any], racers: int, arg: int) -> list[Any]:
    """Run `task(store, racer, arg, barrier)` in so many processes; return the results in order of racers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.racers", "starling.infra.store.s3"])
    barrier, results = context.Barrier(racers), context.Queue()
    processes = [
        context.Process(target=_run, args=(dict(os.environ), uri, task, racer, arg, barrier, results))
        for racer in range(racers)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=PATIENCE) for _ in processes)
    except queue.Empty:
        for process in processes:
            process.kill()
        raise
    finally:
        for process in processes:
            process.join()
        results.close()
    return [found[racer] for racer in range(racers)]


def _run(
    environment: dict[str, str], uri: str, task: Any, racer: int, arg: int, barrier: Barrier, results: Queue[Any]
) -> None:
    os.environ.update(environment)  # by itself it is what it was when the clean process started
    try:
        results.put((racer, task(open_store(uri), racer, arg, barrier)))
    except StoreError as error:
        results.put((racer, error))
