"""Events of a run: one small object each, written once, read in order of time."""

from __future__ import annotations

import secrets
from typing import Any

from starling.infra import layout
from starling.infra.clock import Clock, SystemClock
from starling.infra.records import Event, EventKind
from starling.infra.store.base import Store


class Journal:
    """Writes events of one run."""

    def __init__(self, store: Store, run: str, clock: Clock | None = None) -> None:
        self._store = store
        self._run = run
        self._clock = clock or SystemClock()

    def write(
        self, kind: EventKind, /, subject: str, reason: str, *, at: float | None = None, name: str = "", **data: Any
    ) -> Event:
        """Record one change; `at` defaults to now. `data` may have a key named "kind".

        Several who write the same change, lest it be lost with one of them, give the same `at` and the same `name`.
        """
        event = Event(at=self._clock.now() if at is None else at, kind=kind, subject=subject, reason=reason, data=data)
        self._store.put(
            f"{layout.events(self._run)}{event.at * 1e6:017.0f}-{name or secrets.token_hex(4)}.json", event.to_bytes()
        )
        return event


def read_events(store: Store, run: str) -> list[Event]:
    """All events of a run, oldest first."""
    events = [Event.from_bytes(store.get(info.key).data) for info in store.list(layout.events(run))]
    return sorted(events, key=lambda event: event.at)
