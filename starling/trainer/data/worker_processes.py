"""Processes that share out computation on images: decoding and compressing hold Python's lock too long for threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from starling.infra.errors import NoRoom
from starling.infra.processes import die_with_parent


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many; what they have not begun when the block ends is dropped. NoRoom if one was killed.

    They are not forked: locks and connections of this process must not be copied. They die with it, whatever kills
    it, and leave Ctrl-C to it.
    """
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),))
    try:
        _start(pool, count)
        yield pool
    except BrokenProcessPool as error:
        raise NoRoom(
            "a worker process was killed, most likely because the memory ran out: try again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(pool: ProcessPoolExecutor, count: int) -> None:
    """Have all processes started now: a job starts one if none is idle. They inherit the mask, so not even their
    imports see a Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(count):
            pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
