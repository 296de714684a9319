from __future__ import annotations

import os
import signal
import time

import pytest

from starling.infra.errors import NoRoom
from starling.trainer.data.worker_processes import worker_processes


def blocked_signals() -> tuple[int, set[signal.Signals]]:
    time.sleep(0.5)  # long enough for the other worker to take the other job
    return os.getpid(), {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def end_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def use_and_lose_two_workers() -> None:
    with worker_processes(2) as pool:
        found = [future.result() for future in [pool.submit(blocked_signals) for _ in range(4)]]
        assert all(signal.SIGINT in blocked for _, blocked in found)
        assert len({pid for pid, _ in found}) == 2
        pool.submit(end_at_once).result()


def test_workers_leave_ctrl_c_to_their_parent_and_a_killed_one_is_reported() -> None:
    with pytest.raises(NoRoom, match="fewer --workers"):
        use_and_lose_two_workers()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
