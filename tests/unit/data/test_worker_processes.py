from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from starling.infra.errors import NoRoom
from starling.trainer.data.worker_processes import worker_processes


def blocked_signals(folder: Path) -> set[signal.Signals]:
    """As seen by one of two workers that are in here at the same time."""
    (folder / str(os.getpid())).touch()
    give_up_at = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < give_up_at, "the other worker has not taken the other job"
        time.sleep(0.01)
    return {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def end_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def use_and_lose_two_workers(folder: Path) -> None:
    with worker_processes(2) as pool:
        found = [future.result() for future in [pool.submit(blocked_signals, folder) for _ in range(2)]]
        assert all(signal.SIGINT in blocked for blocked in found)
        pool.submit(end_at_once).result()


def test_workers_leave_ctrl_c_to_their_parent_and_a_killed_one_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match="fewer --workers"):
        use_and_lose_two_workers(tmp_path)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
