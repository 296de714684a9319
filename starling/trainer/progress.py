"""How far training is, in files of the node, so that it is known even when the process is killed in mid-step."""

from __future__ import annotations

import json
import mmap
import struct
import time
from pathlib import Path
from typing import Any

from starling.infra.records import Progress

EVERY = 0.5
"""Seconds between two writes of progress and metrics."""


class StepCounter:
    """The number of completed steps, in shared memory of the page cache: survives SIGKILL, costs no system call."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            aside = path.with_suffix(".new")
            aside.write_bytes(struct.pack("<q", -1))
            aside.replace(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def read(self) -> int:
        """Steps completed by this node in any round; -1 if none ever was."""
        return int(struct.unpack_from("<q", self._map)[0])

    def write(self, step: int) -> None:
        struct.pack_into("<q", self._map, 0, step)


class ProgressFile:
    """Writes progress.json for the agent."""

    def __init__(self, path: Path, total_steps: int, steps_per_epoch: int, round_: int, rank: int, world: int) -> None:
        self._path = path
        self._fixed = {"total_steps": total_steps, "round": round_, "rank": rank, "world_size": world}
        self._steps_per_epoch = steps_per_epoch
        self._last = 0.0
        self._started: tuple[int, float] | None = None
        self._newest: Progress | None = None

    def update(
        self,
        step: int,
        *,
        loss: float | None,
        checkpoint_step: int | None,
        data_wait_share: float | None = None,
        force: bool = False,
    ) -> None:
        """Say that `step` steps are completed; written at most every `EVERY` seconds unless forced."""
        now = time.time()
        if self._started is None:
            self._started = (step, now)
        if now - self._last < EVERY and not force:
            return
        done, since = step - self._started[0], now - self._started[1]
        progress = Progress(
            at=now,
            step=step,
            epoch=step // self._steps_per_epoch,
            loss=loss,
            step_seconds=since / done if done else None,
            checkpoint_step=checkpoint_step,
            data_wait_share=data_wait_share,
            started=True,
            **self._fixed,
        )
        self._write(progress)

    def alive(self) -> None:
        """Say that something goes on, though no step is completed; written at most every `EVERY` seconds."""
        if self._newest is not None and time.time() - self._last >= EVERY:
            self._write(self._newest.but(at=time.time(), active_at=time.time()))

    def _write(self, progress: Progress) -> None:
        aside = self._path.with_suffix(".new")
        aside.write_bytes(progress.to_bytes())
        aside.replace(self._path)
        self._newest, self._last = progress, progress.at


class MetricsFile:
    """Appends JSON lines to metrics.jsonl; the agent ships them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._last = 0.0

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps({"at": time.time(), **values}) + "\n")
        if time.time() - self._last > EVERY:
            self.flush()

    def flush(self) -> None:
        self._file.flush()
        self._last = time.time()
