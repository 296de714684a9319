"""Ranges of objects, handed on piece by piece: for readers that copy them to a disk and need no copy in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from starling.infra.errors import ObjectCorrupt

Take = Callable[[memoryview], object]
"""Takes the next piece; its memory is used again once this returns. Must not raise OSError."""


class ReadsRanges(Protocol):
    """Any store or storage; see `Store.read_range`."""

    @property
    def uri(self) -> str: ...

    def read_range(self, key: str, offset: int, length: int) -> bytes: ...


@runtime_checkable
class StreamsRanges(Protocol):
    """A store that need not hold a whole range in memory."""

    def stream_range(self, key: str, offset: int, length: int, take: Take) -> int:
        """As the function below, but returns how many bytes there were."""
        ...


def stream_range(store: ReadsRanges, key: str, offset: int, length: int, take: Take) -> None:
    """Hand bytes [offset, offset + length) of an object to `take`, in order and each once.

    Raises ObjectNotFound, ObjectCorrupt (the object ends before), and StoreUnavailable after the store's patience.
    """
    if isinstance(store, StreamsRanges):
        count = store.stream_range(key, offset, length, take)
    else:
        data = store.read_range(key, offset, length)
        count = len(data)
        take(memoryview(data))
    if count != length:
        raise ObjectCorrupt(
            f"{key} in {store.uri} ends at byte {offset + count}, but its index says that there are {offset + length}"
        )
