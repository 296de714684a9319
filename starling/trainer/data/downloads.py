"""Brings chunks to this process: those it waits for at once, those it will need in the order of their first use."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from starling.infra.errors import StarlingError
from starling.infra.store.streaming import stream_range
from starling.trainer.data.cache import ChunkCache, Held
from starling.trainer.data.chunks import Chunk
from starling.trainer.data.index import DatasetPlace
from starling.trainer.data.open_chunks import OpenChunks

log = logging.getLogger(__name__)

IN_FLIGHT = 12
"""Downloads at once: as many ranges of 8 MiB as keep a fast network busy over a latency of 30 ms."""
AHEAD_BYTES = 256 << 20
"""Chunks fetched, or on their way, before their first sample is wanted; a quarter of this rank's share of the cache if
that is less: what all ranks fetch ahead must not drive each other out. Without a cache they are in memory."""

IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends."""


class Downloads:
    """Thread-safe. Its threads come with downloads, and go when there has been nothing to do for a while."""

    def __init__(self, place: DatasetPlace, chunks: list[Chunk], cache: ChunkCache) -> None:
        self._place = place
        self._chunks = chunks
        self._cache = cache
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._ahead_bytes = min(AHEAD_BYTES, cache.limit // ranks // 4) if cache.limit else AHEAD_BYTES
        self._open = OpenChunks(cache.mapped_limit // ranks)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._urgent: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._expected: deque[tuple[int, int]] = deque()
        """(position of the first sample that needs it, chunk); positions rise."""
        self._early: deque[tuple[int, int]] = deque()
        """(position, bytes) of chunks that were begun before their first sample was wanted; positions rise."""
        self._early_bytes = 0
        self._position = 0
        self._flying: dict[int, Future[Held]] = {}

    def expect(self, chunks: Iterable[tuple[int, int]]) -> None:
        """These will be needed: (position of the first sample in it, chunk), in that order."""
        with self._changed:
            self._expected.extend(chunks)
            self._start()
            self._changed.notify_all()

    def reached(self, position: int) -> None:
        """Samples before this position have been read."""
        with self._changed:
            self._position = max(self._position, position)
            while self._early and self._early[0][0] < self._position:
                self._early_bytes -= self._early.popleft()[1]
            if self._expected:
                self._start()  # they may have gone while there was no room
            self._changed.notify_all()

    def has(self, chunk: int) -> bool:
        """Whether it is open, on this node or on its way."""
        with self._changed:
            if chunk in self._open or chunk in self._flying:
                return True
        held = self._cache.find(self._chunks[chunk])
        return held is not None

    def need(self, chunks: Iterable[int]) -> dict[int, Held]:
        """Wait until all of them are here. Raises the store's errors."""
        waited = {chunk: self._wanted(chunk) for chunk in chunks}
        return {chunk: held.result() if isinstance(held, Future) else held for chunk, held in waited.items()}

    def mend(self, chunk: int, damaged: Held) -> Held:
        """Another copy of a chunk, which was found damaged. Raises the store's errors."""
        held = self._cache.fetch(self._chunks[chunk], self._stream(chunk), instead_of=damaged)
        self._open.keep(chunk, held)
        return held

    def soon(self, work: Callable[[], bytearray]) -> Future[bytearray]:
        """Have a thread do this before anything that is only expected."""
        future: Future[bytearray] = Future()
        with self._changed:
            self._urgent.append((future, work))
            self._start()
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Begin nothing any more. What is under way ends by itself; nobody waits for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._open.close()

    def _wanted(self, chunk: int) -> Held | Future[Held]:
        with self._changed:
            if held := self._open.use(chunk):
                return held
            if future := self._flying.get(chunk):
                return future
        if held := self._cache.find(self._chunks[chunk]):  # no thread has to be woken for a file that is there
            self._open.keep(chunk, held)
            return held
        with self._changed:
            if chunk not in self._flying:  # another thread may have been quicker
                self._flying[chunk] = Future()
                self._urgent.append((self._flying[chunk], partial(self._bring, chunk)))
                self._start()
                self._changed.notify_all()
            return self._flying[chunk]

    def _bring(self, chunk: int) -> Held:
        return self._cache.fetch(self._chunks[chunk], self._stream(chunk))

    def _stream(self, number: int) -> Callable[[Callable[[memoryview], object]], None]:
        chunk = self._chunks[number]
        return partial(stream_range, self._place.store, self._place.prefix + chunk.key, chunk.start, chunk.size)

    def _start(self) -> None:
        """Only under the lock."""
        while len(self._threads) < IN_FLIGHT:
            # Daemons: a download that waits for a dead store must not keep the process from ending.
            self._threads.append(threading.Thread(target=self._work, name="download", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while job := self._next():
            self._do(*job)
            del job  # it has the chunk, which would stay mapped for as long as this thread waits

    def _do(self, chunk: int | None, future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            result = work()
        except BaseException as error:  # whoever waits for it gets it
            self._ended(chunk, future, None)
            future.set_exception(error)
            if not isinstance(error, StarlingError | OSError):
                log.exception("a download failed")
        else:
            self._ended(chunk, future, result)
            future.set_result(result)

    def _next(self) -> tuple[int | None, Future[Any], Callable[[], Any]] | None:
        """What to do next; waits until there is something. None if that takes long, and after `close`."""
        with self._changed:
            while not self._closed:
                if self._urgent:
                    future, work = self._urgent.popleft()
                    return self._chunk_of(future), future, work
                if (chunk := self._next_expected()) is not None:
                    future = self._flying[chunk] = Future()
                    return chunk, future, partial(self._bring, chunk)
                if not self._changed.wait(IDLE) and not self._urgent:
                    self._threads.remove(threading.current_thread())
                    return None
            for future, _ in self._urgent:
                future.cancel()
            self._urgent.clear()
            return None

    def _next_expected(self) -> int | None:
        """Only under the lock. The next chunk to fetch ahead of its use, if there is room for it."""
        while self._expected:
            position, chunk = self._expected[0]
            size = self._chunks[chunk].size
            if chunk in self._open or chunk in self._flying or position < self._position:
                self._expected.popleft()
                continue
            if self._early_bytes + size > self._ahead_bytes:
                return None
            self._expected.popleft()
            self._early.append((position, size))
            self._early_bytes += size
            return chunk
        return None

    def _chunk_of(self, future: Future[Any]) -> int | None:
        return next((chunk for chunk, flying in self._flying.items() if flying is future), None)

    def _ended(self, chunk: int | None, future: Future[Any], held: Held | None) -> None:
        with self._changed:
            if chunk is not None and self._flying.get(chunk) is future:
                del self._flying[chunk]
                if held is not None:
                    self._open.keep(chunk, held)
