"""The chunks that a process keeps open: those used last, of all its readers together.

What is mapped takes room on the disk though it is evicted, and a descriptor, of which processes often have no more than
1024. So readers share what may be open: training, say, gets all of it while no evaluation needs any.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from weakref import WeakSet

from starling.trainer.data.cache import Held

OPEN_CHUNKS = 256
"""So many at most are open."""
MEMORY_BYTES = 512 << 20
"""Chunks that are kept in memory because the disk has no room."""


class OpenChunks:
    """One reader's. Thread-safe. They go with it, at the latest."""

    def __init__(self, mapped_bytes: int) -> None:
        """`mapped_bytes`: how much may be mapped, by all readers of the process; one chunk always may be open."""
        self._mapped_bytes = mapped_bytes
        self._open: OrderedDict[int, tuple[int, Held]] = OrderedDict()
        """Chunk -> (when it was used, itself); the one not used for longest is the first."""
        self._closed = False
        with _lock:
            _readers.add(self)

    def __contains__(self, chunk: int) -> bool:
        with _lock:
            return chunk in self._open

    def use(self, chunk: int) -> Held | None:
        """The chunk if it is open."""
        with _lock:
            if (found := self._open.get(chunk)) is None:
                return None
            self._put(chunk, found[1])
            return found[1]

    def keep(self, chunk: int, held: Held) -> None:
        """Keep it open, and let go of what was not used for longest, whichever reader's it is."""
        with _lock:
            if not self._closed:
                self._put(chunk, held)
                while self._is_crowded():
                    oldest = min((reader for reader in _readers if reader._open), key=lambda reader: reader._used_at)
                    oldest._open.popitem(last=False)

    def close(self) -> None:
        """Keep nothing any more. Who holds a chunk goes on reading it."""
        with _lock:
            self._closed = True
            self._open.clear()

    def _put(self, chunk: int, held: Held) -> None:
        self._open[chunk] = next(_clock), held
        self._open.move_to_end(chunk)

    @property
    def _used_at(self) -> int:
        return next(iter(self._open.values()))[0]

    def _is_crowded(self) -> bool:
        there = [held for reader in _readers for _, held in reader._open.values()]
        in_memory = sum(len(held.data) for held in there if held.inode is None)
        mapped = sum(len(held.data) for held in there) - in_memory
        too_much = len(there) > OPEN_CHUNKS or mapped > self._mapped_bytes or in_memory > MEMORY_BYTES
        return too_much and len(there) > 1


_lock = threading.Lock()
_readers: WeakSet[OpenChunks] = WeakSet()
_clock = itertools.count()
