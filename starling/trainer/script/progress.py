"""Says every half second that this node takes part in a round, and when its script last showed life."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from starling.infra.files import write_atomically
from starling.infra.records import Progress
from starling.infra.supervision import PROGRESS

EVERY = 0.5

log = logging.getLogger(__name__)


class ScriptProgress:
    """Writes progress.json for the agent, from a thread: restoring and committing may take long."""

    def __init__(self, work_dir: Path, *, round_number: int, rank: int, world_size: int, started: bool) -> None:
        """`started`: whether this node has run a script in an earlier round."""
        self._path = work_dir / PROGRESS
        self._fixed = {"round": round_number, "rank": rank, "world_size": world_size}
        self.active_at: Callable[[], float] = time.time
        """When the script last showed life; now, while there is no script to wait for."""
        self.snapshot: Callable[[], int | None] = lambda: None
        self.started = started
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
            started=self.started,
            **self._fixed,
        )
        try:
            write_atomically(self._path, progress.to_bytes())
        except OSError as error:  # a disk that is full for a moment: silence for good would look like a stall
            log.warning("the script's progress cannot be written down, trying again: %s", error)
