"""Batches made ahead of the loop by a thread, in the order in which the loop takes them.

    with Feed(samples, (Wanted(shard, entries, weights, epoch) for ...), seed=0) as feed:
        batch, weights = feed.take(shard)
        feed.waited                       # seconds for which `take` has kept the loop waiting so far

What is in a batch does not depend on when it is made, so the feed changes no bits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import torch

from starling.trainer.task import Batch, Samples

AHEAD_BATCHES = 16
AHEAD_BYTES = 256 << 20
"""Batches that wait to be taken: not more than the one, nor the other (but always one)."""
EXPECTED = 4096
"""Samples that `expect` is told of before they are asked for."""
GOODBYE = 10.0
"""Seconds to wait for the thread at the end. It may be in the middle of a batch, or wait for the store."""


@runtime_checkable
class Foresighted(Protocol):
    """Samples that fetch ahead."""

    def expect(self, entries: Sequence[int]) -> None:
        """These entries will be asked for, in this order, after those of the calls before."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """One batch that the loop will take."""

    shard: int
    entries: list[int]
    weights: list[float]
    epoch: int | None
    """None for an evaluation."""


@dataclass(slots=True)
class _Made:
    wanted: Wanted
    batch: Batch
    error: BaseException | None = None
    bytes: int = 0


class Feed:
    """`samples` are called by one thread at a time: the feed's, or one of all feeds' that share the lock `turn`.

    The first batch is made in the caller's thread. If that draws from torch's global generator, which it should not,
    the others are made there as well: ahead of the loop such draws would mix with the model's.
    """

    def __init__(
        self,
        samples: Samples,
        wanted: Iterator[Wanted],
        *,
        seed: int,
        first: int = 1,
        turn: threading.Lock | None = None,
    ) -> None:
        """`first` batches are needed before anything can go on; they are hurried."""
        self.waited = 0.0
        self._first = first
        self._samples, self._seed = samples, seed
        self._turn = turn or threading.Lock()
        self._wanted = wanted
        self._coming: deque[Wanted] = deque()
        """What `samples` was told to expect."""
        self._coming_entries = 0
        self._ready: deque[_Made] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._inline: bool | None = None
        self._closed = False

    def take(self, shard: int) -> tuple[Batch, torch.Tensor]:
        """The next batch and its weights [b]. Raises what making it raised; ValueError if it is of another shard."""
        began = time.perf_counter()
        made = self._next()
        self.waited += time.perf_counter() - began
        if made.error is not None:
            raise made.error
        if made.wanted.shard != shard:
            raise ValueError(f"the next batch is of shard {made.wanted.shard}, not {shard}")
        return made.batch, torch.tensor(made.wanted.weights)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(GOODBYE)
        self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> _Made:
        if self._inline is None:
            before = torch.get_rng_state()
            made = self._made()
            self._inline = not torch.equal(before, torch.get_rng_state())
            if not self._inline:
                self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
                self._thread.start()
            return made
        if self._inline:
            return self._made()
        with self._changed:
            while not self._ready:
                self._changed.wait()
            made = self._ready.popleft()
            self._bytes -= made.bytes
            self._changed.notify_all()
            return made

    def _work(self) -> None:
        while self._has_room():
            made = self._made()
            with self._changed:
                self._ready.append(made)
                self._bytes += made.bytes
                self._changed.notify_all()
            if made.error is not None:
                return

    def _has_room(self) -> bool:
        """Wait until one more batch may be made. False once there is no use for any."""
        with self._changed:
            while not self._closed and self._ready:
                if len(self._ready) < AHEAD_BATCHES and self._bytes + self._ready[-1].bytes <= AHEAD_BYTES:
                    break
                self._changed.wait()
            return not self._closed

    def _made(self) -> _Made:
        """The next batch, or why there is none."""
        wanted = Wanted(-1, [], [], None)
        try:
            with self._turn:
                self._look_ahead()
                if not self._coming:
                    raise LookupError("no more batches were announced to this feed")
                wanted = self._coming.popleft()
                self._coming_entries -= len(wanted.entries)
                batch = self._samples.batch(wanted.entries, seed=self._seed, epoch=wanted.epoch)
            return _Made(wanted, batch, bytes=sum(tensor.nbytes for tensor in batch.values()))
        except BaseException as error:  # the loop gets it when it comes to this batch
            return _Made(wanted, {}, error)

    def _look_ahead(self) -> None:
        if self._inline is None:
            self._expect(list(islice(self._wanted, self._first)))
        fresh: list[Wanted] = []
        missing = EXPECTED - self._coming_entries
        while missing > 0 and (wanted := next(self._wanted, None)):
            fresh.append(wanted)
            missing -= len(wanted.entries)
        self._expect(fresh)

    def _expect(self, fresh: list[Wanted]) -> None:
        entries = [entry for wanted in fresh for entry in wanted.entries]
        self._coming += fresh
        self._coming_entries += len(entries)
        if entries and isinstance(self._samples, Foresighted):
            self._samples.expect(entries)
