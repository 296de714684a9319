"""The agent's link to the store, on a thread of its own: a store that is slow or away never holds up the node."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starling.infra import layout
from starling.infra.agent.output import LogBuffer, LogShipper, MetricsShipper
from starling.infra.clock import Clock
from starling.infra.errors import ObjectNotFound, StoreError
from starling.infra.journal import Journal
from starling.infra.records import EventKind, NodeIntent, NodeStatus, RunRecord, StopRequest, Verdict
from starling.infra.store.base import Store

INTERVAL_SECONDS = 2.0
CLOSE_SECONDS = 15.0
"""For the last words of a node; a store that is away longer than that does not get them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """What the store said last."""

    intent: NodeIntent | None = None
    stop: StopRequest | None = None
    """Only if it concerns this node's incarnation."""
    verdict: Verdict | None = None
    missing_since: float | None = None
    """Since when the node's own intent cannot be found."""


class Uplink:
    """Reads the controller's word, and writes the node's status, events, logs and metrics, every INTERVAL_SECONDS.

    All public methods return at once (but `close`) and may be called from the agent's main thread only.
    """

    def __init__(self, store: Store, run: str, node: str, logs: LogBuffer, metrics: Path, clock: Clock) -> None:
        self._store, self._run, self._node, self._clock = store, run, node, clock
        self._journal = Journal(store, run, clock)
        self._logs = LogShipper(store, run, node, logs)
        self._metrics = MetricsShipper(store, run, node, metrics, clock)
        self._events: deque[tuple[EventKind, str, float, dict[str, Any]]] = deque()
        self._status: NodeStatus | None = None
        self._remote = Remote()
        self._failed: BaseException | None = None
        self._away_since: float | None = None
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="uplink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def remote(self) -> Remote:
        """The newest word from the store. Raises what broke the link, if that was a fault of ours."""
        if self._failed is not None:
            raise self._failed
        return self._remote

    def publish(self, status: NodeStatus, *, at_once: bool = False) -> None:
        """Have this status written with the next exchange, which comes now if `at_once`."""
        self._status = status
        if at_once:
            self._wake.set()

    def event(self, kind: EventKind, reason: str, /, **data: Any) -> None:
        self._events.append((kind, reason, self._clock.now(), data))
        self._wake.set()

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Send what is left, for so many seconds at most; return whether all of it got there."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and self._failed is None and self._away_since is None

    def _work(self) -> None:
        try:
            while not self._closing:
                self._exchange()
                self._wake.wait(INTERVAL_SECONDS)
                self._wake.clear()
            self._exchange()
        except BaseException as error:  # handed to the main thread, which raises it
            self._failed = error

    def _exchange(self) -> None:
        """One round with the store. The status comes last: "ended" then means that all else is there."""
        steps: tuple[Callable[[], None], ...] = (
            self._read,
            self._send_events,
            self._logs.ship,
            self._metrics.ship,
            self._send_status,
        )
        try:
            for step in steps:
                step()
        except StoreError as error:
            # Training goes on without the store; only the first failure and the recovery are worth a line.
            if self._away_since is None:
                self._away_since = self._clock.now()
                _log.warning("the store cannot be used: %s", error)
            return
        if self._away_since is not None:
            _log.info("the store can be used again after %.0f s", self._clock.now() - self._away_since)
            self._away_since = None

    def _read(self) -> None:
        try:
            intent = NodeIntent.from_bytes(self._store.get(layout.intent(self._node)).data)
            record = RunRecord.from_bytes(self._store.get(layout.run_record(self._run)).data)
            verdict = self._remote.verdict or self._read_verdict(intent.incarnation)
        except ObjectNotFound:
            self._remote = replace(self._remote, missing_since=self._remote.missing_since or self._clock.now())
            return
        self._remote = Remote(
            intent=intent, stop=record.stop if record.incarnation == intent.incarnation else None, verdict=verdict
        )

    def _read_verdict(self, incarnation: int) -> Verdict | None:
        try:
            return Verdict.from_bytes(self._store.get(layout.verdict(self._run, incarnation)).data)
        except ObjectNotFound:
            return None

    def _send_events(self) -> None:
        while self._events:
            kind, reason, at, data = self._events[0]
            self._journal.write(kind, self._node, reason, at=at, **data)
            self._events.popleft()

    def _send_status(self) -> None:
        if self._status is not None:
            self._store.put(layout.status(self._node), self._status.but(at=self._clock.now()).to_bytes())
