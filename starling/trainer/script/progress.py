"""Says every half second that this node takes part in a round, and when its script last showed life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from starling.infra.files import write_atomically
from starling.infra.records import Progress
from starling.infra.supervision import PROGRESS

EVERY = 0.5


class ScriptProgress:
    """Writes progress.json for the agent, from a thread: restoring and committing may take long."""

    def __init__(self, work_dir: Path, *, round_number: int, rank: int, world_size: int) -> None:
        self._path = work_dir / PROGRESS
        self._fixed = {"round": round_number, "rank": rank, "world_size": world_size}
        self.active_at: Callable[[], float] = time.time
        """When the script last showed life; now, while there is no script to wait for."""
        self.snapshot: Callable[[], int | None] = lambda: None
        self._over = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        # Nobody but the script knows its steps.
        progress = Progress(
            at=time.time(),
            step=0,
            total_steps=0,
            epoch=0,
            active_at=self.active_at(),
            snapshot=self.snapshot(),
            **self._fixed,
        )
        write_atomically(self._path, progress.to_bytes())
