"""Readers as processes that wait for their turn, and what a turn did to the machine."""

from __future__ import annotations

import json
import os
import select
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.data_peers.turn import Job, Outcome

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 150.0
"""Seconds for one turn; the slowest takes 15 s on two cores. One peer was seen to wait a minute for its own fault."""
GOODBYE = 5.0
"""Seconds that a reader has to end by itself."""
SAMPLED_EVERY = 0.05


class ReaderFailed(Exception):
    """A reader did not do what it was asked to; the text is its own."""


class ReaderProcess:
    """A reader that has imported what it needs and now waits for jobs."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
                cwd=log.parent,
                text=True,
            )
        try:
            self._answer()  # "ready"
        except ReaderFailed:
            self.close()
            raise

    def turn(self, job: Job) -> Outcome:
        """Do one job. Raises ReaderFailed."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(asdict(job)), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ReaderFailed(f"{self.name} has ended: {self._last_words()}") from None
        answer = self._answer()
        if "error" in answer:
            raise ReaderFailed(f"{self.name}: {answer['error']}")
        return Outcome(**answer)

    def turn_with_memory(self, job: Job) -> tuple[Outcome, int]:
        """Like `turn`, and by how much (bytes) the memory of it and its workers grew meanwhile, at most.

        Proportional: what several of them share counts once. Looking costs time, so such a turn is not for timing.
        """
        idle = _memory_of_family(self._process.pid)
        peak, done = [idle], threading.Event()
        watcher = threading.Thread(target=_watch, args=(self._process.pid, peak, done))
        watcher.start()
        try:
            return self.turn(job), peak[0] - idle
        finally:
            done.set()
            watcher.join()

    def close(self) -> None:
        """Ask it to end, so that it clears up what it shares with its workers; then make sure."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # what it was asked last was never read
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GOODBYE)
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for orphan in family:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        line = _line_within(stream, PATIENCE)
        if line is None:
            raise ReaderFailed(f"{self.name} did not answer for {PATIENCE:.0f} s")
        if not line:
            raise ReaderFailed(f"{self.name} has ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


@contextmanager
def closed_afterwards(readers: dict[str, ReaderProcess]) -> Iterator[None]:
    """End all of them at the end of the block."""
    try:
        yield
    finally:
        for reader in readers.values():
            reader.close()


def _line_within(stream: IO[str], seconds: float) -> str | None:
    """The next line; None if none comes in time, empty if none ever will. Each answer is just one line."""
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if ready else None


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(SAMPLED_EVERY):
        peak[0] = max(peak[0], _memory_of_family(pid))


def _memory_of_family(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ends while we look
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += member.memory_full_info().pss
    return total
