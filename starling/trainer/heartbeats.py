"""Heartbeats: one small object a member, for deaths of which there is no proof (`starling/trainer/pulse.py`).

They are judged by each reader's own clock: no two machines' clocks are compared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from starling.infra.errors import ObjectNotFound
from starling.infra.store import Store

FEW = 9
"""Members whose heartbeats are had more cheaply by one listing than one by one."""


class Silence:
    """Who has stopped changing a heartbeat, as far as one kind of look at them tells."""

    def __init__(self, lapse: float) -> None:
        self._lapse = lapse
        self._seen: dict[str, tuple[str, float, float]] = {}

    def observe(self, tags: dict[str, str], now: float) -> None:
        """Take in heartbeats: member id -> tag that changes with every beat."""
        for member_id, tag in tags.items():
            before, changed, _ = self._seen.get(member_id, ("", 0.0, 0.0))
            self._seen[member_id] = (tag, changed if before == tag else now, now)

    def lapsed(self) -> frozenset[str]:
        """Members whose beat was seen again, unchanged, `lapse` seconds or more after it was first seen. Not looking
        for a while makes nobody dead."""
        return frozenset(i for i, (_, changed, seen) in self._seen.items() if seen - changed >= self._lapse)


class Heartbeats:
    """One member's beat, and what it knows of the others'. Methods that touch the store raise StoreError."""

    def __init__(self, store: Store, prefix: str, member_id: str, *, beat: float, missed: int) -> None:
        self._store = store
        self._folder = f"{prefix}/beats/"
        self._me = member_id
        self._beat = beat
        self._count = 0
        self._next_roll_call = 0.0
        self._watched = Silence(beat * missed)
        self._called = Silence(beat * missed)

    def beat(self) -> None:
        """To be called once a beat."""
        self._count += 1
        self._store.put(self._folder + self._me, str(self._count).encode())

    def watch(self, neighbours: Sequence[str], members: int) -> None:
        """Look at some members of a group of so many, once a beat while training runs."""
        if members <= FEW:
            self._watched.observe(self._all(), time.monotonic())
            return
        for member_id in {*neighbours, *self.lapsed()}:  # who had lapsed may be back, and nobody's neighbour of ours
            with contextlib.suppress(ObjectNotFound):  # it has not beaten yet, or has left
                found = self._store.get(self._folder + member_id)
                # A listing's tag of the same beat differs: who is watched in both ways seems to live a beat longer.
                self._watched.observe({member_id: found.version}, time.monotonic())

    def call_the_roll(self) -> frozenset[str]:
        """Look at everybody's, at most once a beat; who has lapsed. For whoever forms a group."""
        now = time.monotonic()
        if now >= self._next_roll_call:
            self._next_roll_call = now + 0.9 * self._beat
            self._called.observe(self._all(), now)
        return self._called.lapsed() | self.lapsed()

    def lapsed(self) -> frozenset[str]:
        """Who has lapsed, of those who are watched."""
        return self._watched.lapsed()

    def remove(self) -> None:
        """This member goes for good."""
        self._store.delete(self._folder + self._me)

    def _all(self) -> dict[str, str]:
        return {info.key.removeprefix(self._folder): info.tag for info in self._store.list(self._folder)}
