"""Output of a node on its way to the store: kept on local disk within bounds, shipped in chunks, never waited for."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from starling.infra import layout
from starling.infra.clock import Clock
from starling.infra.logs import line_formatter
from starling.infra.store.base import Store

LOCAL_BYTES = 8 << 20
"""The local log is turned over at this size; one older file of it is kept."""
BUFFER_BYTES = 4 << 20
"""What waits to be shipped; beyond it (the store is away), the oldest output goes."""
CHUNK_BYTES = 1 << 20


class LogBuffer(logging.Handler):
    """Collects the supervisor's output and the agent's own log lines for shipping. Thread-safe."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(line_formatter())
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0
        self._waiting = bytearray()
        self._dropped = 0
        self._guard = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._guard:
            self._keep_locally(data)
            self._waiting += data
            excess = len(self._waiting) - BUFFER_BYTES
            if excess > 0:
                del self._waiting[:excess]
                self._dropped += excess

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record).encode() + b"\n")

    def take(self) -> bytes:
        """What is to be shipped next; it leaves the buffer."""
        with self._guard:
            note = f"[{self._dropped} bytes of output were dropped: the store was away]\n" if self._dropped else ""
            chunk = note.encode() + bytes(self._waiting[:CHUNK_BYTES])
            del self._waiting[:CHUNK_BYTES]
            self._dropped = 0
            return chunk

    def _keep_locally(self, data: bytes) -> None:
        if self._size + len(data) > LOCAL_BYTES and self._path.exists():
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._size = 0
        with self._path.open("ab") as file:
            file.write(data)
        self._size += len(data)


class LogShipper:
    """Puts a node's output into the store as numbered chunks."""

    def __init__(self, store: Store, run: str, node: str, buffer: LogBuffer) -> None:
        self._store = store
        self._prefix = layout.logs(run, node)
        self._buffer = buffer
        self._chunk = b""
        self._next: int | None = None

    def ship(self) -> None:
        """Ship all that waits. Raises StoreError; what could not be shipped is tried again next time."""
        while self._chunk or (chunk := self._buffer.take()):
            self._chunk = self._chunk or chunk
            if self._next is None:  # chunks of an agent before us on this node stay as they are
                self._next = sum(1 for _ in self._store.list(self._prefix))
            self._store.put(f"{self._prefix}{self._next:08d}.log", self._chunk)
            self._next += 1
            self._chunk = b""


class MetricsShipper:
    """Puts new whole lines of a growing metrics.jsonl into the store, as one object each time."""

    def __init__(self, store: Store, run: str, node: str, path: Path, clock: Clock) -> None:
        self._store = store
        self._run, self._node = run, node
        self._path = path
        self._clock = clock
        self._offset = 0
        self._sequence = 0

    def ship(self) -> None:
        """Raises StoreError; what could not be shipped is tried again next time."""
        while lines := self._new_lines():
            name = f"{self._clock.now() * 1e9:020.0f}-{self._node}-{self._sequence:06d}.jsonl"
            self._store.put(layout.metrics(self._run) + name, lines)
            self._offset += len(lines)
            self._sequence += 1

    def _new_lines(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]
