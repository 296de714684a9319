"""A store that misbehaves on purpose, to rehearse what a real one may do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ObjectCorrupt, StoreError, StoreUnavailable
from starling.infra.store.base import ObjectInfo, Store, Versioned


class Fault(StrEnum):
    """What can go wrong with one operation."""

    UNAVAILABLE = "unavailable"
    """Nothing is done; StoreUnavailable."""
    SLOW = "slow"
    """Done, but only after `FaultRule.seconds`."""
    LOST_ANSWER = "lost-answer"
    """Done, and then StoreUnavailable: the caller cannot know."""
    TIMEOUT = "timeout"
    """Nothing is done; StoreUnavailable after `FaultRule.seconds`."""
    TORN = "torn"
    """An upload writes the first half of the file only, and then StoreUnavailable. Other operations: UNAVAILABLE."""
    TRUNCATED = "truncated"
    """A download gets the first half only, which its checksum gives away: ObjectCorrupt. Others: UNAVAILABLE."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultRule:
    """Which operations are hit: all conditions must hold."""

    fault: Fault
    operation: str = "*"
    """Name of the Store's method; `*` and `?` as in file names."""
    key: str = "*"
    """Likewise; `list` has its prefix for a key. `*` matches slashes too."""
    skip: int = 0
    """So many matching operations pass first."""
    times: int | None = 1
    """So many are then hit; None: all."""
    probability: float = 1.0
    """Chance of each one that is due."""
    seconds: float = 0.0
    """How long SLOW and TIMEOUT take."""


class RuleSource(Protocol):
    """Where rules may come from while the store is in use; see `fault_file`."""

    def news(self) -> list[FaultRule] | None:
        """The rules that hold from now on, if they have changed; else None."""
        ...


class FaultyStore:
    """Passes everything on to `store`, except where a rule says otherwise; the first rule that is due decides.

    The same seed and the same sequence of calls give the same faults. Rules may be added while it is in use, and
    `source`, if there is one, is asked before every operation for rules that take the place of all others.
    """

    def __init__(
        self,
        store: Store,
        rules: Iterable[FaultRule] = (),
        *,
        source: RuleSource | None = None,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.store = store
        self.hits: list[tuple[str, str, Fault]] = []
        """(operation, key, fault) of everything that was hit, in order."""
        self._due = [_Due(rule) for rule in rules]
        self._source = source
        self._random = random.Random(seed)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def add(self, rule: FaultRule) -> None:
        """From now on, too."""
        with self._lock:
            self._due.append(_Due(rule))

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str) -> Versioned:
        with self._faults("get", key):
            return self.store.get(key)

    def put(self, key: str, data: bytes) -> str:
        with self._faults("put", key):
            return self.store.put(key, data)

    def create(self, key: str, data: bytes) -> str:
        with self._faults("create", key):
            return self.store.create(key, data)

    def replace(self, key: str, data: bytes, version: str) -> str:
        with self._faults("replace", key):
            return self.store.replace(key, data, version)

    def delete(self, key: str) -> None:
        with self._faults("delete", key):
            self.store.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._faults("list", prefix):
            return self.store.list(prefix)

    def stat(self, key: str) -> ObjectInfo:
        with self._faults("stat", key):
            return self.store.stat(key)

    def upload(self, path: Path, key: str) -> str:
        with self._faults("upload", key, torn=lambda: self._upload_half([memoryview(path.read_bytes())], key)):
            return self.store.upload(path, key)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self._faults("download", key):
            self.store.download(key, path, sha256)

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        with self._faults("upload", key, torn=lambda: self._upload_half(pieces, key)):
            return self.store.upload_memory(pieces, key)

    def download_memory(self, key: str, target: memoryview) -> None:
        with self._faults("download", key):
            self.store.download_memory(key, target)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._faults("read_range", key):
            return self.store.read_range(key, offset, length)

    @contextmanager
    def _faults(self, operation: str, key: str, torn: Callable[[], None] | None = None) -> Iterator[None]:
        rule = self._draw(operation, key)
        if rule is None:
            yield
            return
        told: StoreError = StoreUnavailable(f"{operation} {key}: {rule.fault} (rehearsed)")
        if rule.fault in (Fault.SLOW, Fault.TIMEOUT):
            self._clock.sleep(rule.seconds)
        if rule.fault is Fault.TRUNCATED and operation == "download":
            raise ObjectCorrupt(f"download {key}: truncated (rehearsed)")
        if rule.fault is Fault.TORN and torn is not None:
            torn()
            raise told
        if rule.fault not in (Fault.SLOW, Fault.LOST_ANSWER):
            raise told
        yield
        if rule.fault is Fault.LOST_ANSWER:
            raise told

    def _draw(self, operation: str, key: str) -> FaultRule | None:
        with self._lock:
            if self._source is not None and (news := self._source.news()) is not None:
                self._due = [_Due(rule) for rule in news]
            for due in self._due:
                if due.hits(operation, key, self._random):
                    self.hits.append((operation, key, due.rule.fault))
                    return due.rule
        return None

    def _upload_half(self, pieces: Sequence[memoryview], key: str) -> None:
        whole = memoryview(b"".join(pieces))
        self.store.upload_memory([whole[: len(whole) // 2]], key)


@dataclass
class _Due:
    """A rule and how far it has come."""

    rule: FaultRule
    seen: int = 0
    hit: int = 0

    def hits(self, operation: str, key: str, chance: random.Random) -> bool:
        rule = self.rule
        if not (fnmatchcase(operation, rule.operation) and fnmatchcase(key, rule.key)):
            return False
        self.seen += 1
        if self.seen <= rule.skip or (rule.times is not None and self.hit >= rule.times):
            return False
        if chance.random() >= rule.probability:
            return False
        self.hit += 1
        return True
