"""Reads a run's records from the store; objects that have not changed are not fetched again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import yaml

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound, StoreError, UsageError
from starling.infra.providers.base import Machine
from starling.infra.records import (
    Event,
    Failure,
    NodeIntent,
    NodeState,
    NodeStatus,
    Record,
    RunRecord,
    RunState,
    Verdict,
)
from starling.infra.snapshots.catalog import Catalog
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import Store, object_uri
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.needs import NeedFacts
from starling.orchestrator.report import View
from starling.orchestrator.spec import Spec

R = TypeVar("R", bound=Record)
_READERS = 16
_PUT = (Event, Failure, NodeStatus)
"""Records that are written by `put`; what decides anything is written by `create` and `replace`."""

log = logging.getLogger(__name__)


class RunReader:
    """Looks at one run, again and again, cheaply."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._seen: dict[str, tuple[str, bytes]] = {}
        self._spec: tuple[int, Spec] | None = None
        self._snapshot: Snapshot | None = None
        self._needed: dict[str, RunReader] = {}
        self._done: dict[str, NeedFacts] = {}

    def record(self) -> RunRecord:
        """Raises UsageError that names the runs there are if this one does not exist."""
        try:
            return RunRecord.from_bytes(self._store.get(layout.run_record(self._run)).data)
        except ObjectNotFound:
            raise unknown_run(self._store, self._run) from None

    def spec(self, record: RunRecord) -> Spec:
        """The spec of the record's incarnation; immutable, so read once."""
        if self._spec is None or self._spec[0] != record.incarnation:
            self._spec = (record.incarnation, read_spec(self._store, self._run, record.incarnation))
        return self._spec[1]

    def verdict(self, record: RunRecord) -> Verdict | None:
        return read_verdict(self._store, self._run, record.incarnation)

    def facts(self, machines: Iterable[Machine] = ()) -> Facts:
        """Everything that the store and these machines say, without a memory of heartbeats."""
        # Machines were listed before we read intents here: whatever has no intent now is really a stray.
        by_node: dict[str, list[Machine]] = {}
        for machine in machines:
            by_node.setdefault(machine.node, []).append(machine)
        record = self.record()
        intents, statuses = self._nodes()
        nodes = [
            NodeFacts(intent=intent, status=statuses.get(node), machine=_machine_of(intent, by_node.get(node, [])))
            for node, intent in intents.items()
        ]
        unknown = [_foremost(found) for node, found in by_node.items() if node not in intents]
        strays = [machine for machine in unknown if machine.alive]
        spec = self.spec(record)
        return Facts(
            run=record,
            spec=spec,
            verdict=self.verdict(record),
            needs=tuple(self._need(name, run) for name, run in spec.needs.items()),
            nodes=tuple(sorted(nodes, key=lambda node: (node.intent.slot, node.intent.generation))),
            strays=tuple(strays),
            failures=tuple(self._failures(record)),
        )

    def events(self) -> list[Event]:
        """All events, oldest first; those that were read before are not read again."""
        infos = list(self._store.list(layout.events(self._run)))
        missing = [info for info in infos if info.key not in self._seen]
        with ThreadPoolExecutor(_READERS) as readers:
            for info, data in zip(
                missing, readers.map(lambda info: self._store.get(info.key).data, missing), strict=True
            ):
                self._seen[info.key] = (info.tag, data)
        found: dict[str, Event] = {}
        for info in infos:
            _take(self._seen[info.key][1], Event, info.key, found)
        return sorted(found.values(), key=lambda event: event.at)

    def manifest(self) -> tuple[str, dict[str, Any]] | None:
        """The newest committed checkpoint: its manifest's key, and the manifest."""
        prefix = layout.checkpoints(self._run)
        keys = [info.key for info in self._store.list(prefix) if info.key.endswith("/manifest.json")]
        for key in sorted(keys, reverse=True):
            try:
                return key, dict(json.loads(self._store.get(key).data))
            except (ObjectNotFound, ValueError):
                continue  # pruned since the listing, or damaged: the one before it counts
        return None

    def snapshot(self, verdict: Verdict | None) -> Snapshot | None:
        """The newest snapshot of a script's folder whose record can be read, up to the one that the verdict names; what
        it was read from is kept."""
        catalog, upto = Catalog(self._store, self._run), final_snapshot(verdict)
        for number in reversed(catalog.numbers()):
            if upto is not None and number > upto:
                continue
            if self._snapshot is not None and self._snapshot.number == number:
                return self._snapshot
            try:
                self._snapshot = catalog.read(number)
            except (ObjectNotFound, ObjectCorrupt):
                continue  # retired since the listing, or damaged: the one before it counts
            return self._snapshot
        return None

    def view(self, machines: Iterable[Machine], now: float) -> View:
        """Everything a report needs."""
        facts, newest = self.facts(machines), self.manifest()
        key, manifest = newest if newest is not None else (None, None)
        uri = object_uri(self._store.uri, key) if key is not None else None
        snapshot = self.snapshot(facts.verdict) if facts.spec.command is not None else None
        return View(
            facts=facts,
            events=tuple(self.events()),
            manifest=manifest,
            checkpoint_uri=uri,
            now=now,
            snapshot=snapshot,
            snapshot_uri=Catalog(self._store, self._run).uri(snapshot.number) if snapshot is not None else None,
        )

    def as_need(self, name: str) -> NeedFacts:
        """What a run that needs this one, and calls it so, has to know."""
        try:
            record = RunRecord.from_bytes(self._store.get(layout.run_record(self._run)).data)
        except ObjectNotFound:
            return NeedFacts(name=name, run=self._run, state=None)
        verdict = self.verdict(record)
        _, statuses = self._nodes() if verdict is None else ({}, {})
        known = [status.progress for status in statuses.values() if status.progress is not None]
        last = max(known, key=lambda progress: (progress.round, progress.step), default=None)
        return NeedFacts(
            name=name,
            run=self._run,
            state=verdict.state if verdict is not None else _state_of(record, statuses),
            reason=verdict.reason if verdict is not None else None,
            step=verdict.step if verdict is not None else last.step if last is not None else None,
            total_steps=last.total_steps if last is not None else None,
            over_at=verdict.at if verdict is not None else None,
        )

    def _need(self, name: str, run: str) -> NeedFacts:
        """A run that is done stays so, and is not read again."""
        if name not in self._done:
            need = self._needed.setdefault(name, RunReader(self._store, run)).as_need(name)
            if not need.done:
                return need
            self._done[name] = need
        return self._done[name]

    def _failures(self, record: RunRecord) -> list[Failure]:
        found: dict[str, Failure] = {}
        for info in self._store.list(layout.failures(self._run, record.incarnation)):
            self._read(info.key, info.tag, Failure, info.key, found)
        return sorted(found.values(), key=lambda failure: failure.at)

    def _nodes(self) -> tuple[dict[str, NodeIntent], dict[str, NodeStatus]]:
        intents: dict[str, NodeIntent] = {}
        statuses: dict[str, NodeStatus] = {}
        for info in self._store.list(layout.nodes_of(self._run)):
            node = info.key.split("/")[1]
            if info.key == layout.intent(node):
                self._read(info.key, info.tag, NodeIntent, node, intents)
            elif info.key == layout.status(node):
                self._read(info.key, info.tag, NodeStatus, node, statuses)
        return intents, statuses

    def _read(self, key: str, tag: str, kind: type[R], name: str, into: dict[str, R]) -> None:
        known = self._seen.get(key)
        if known is None or known[0] != tag:
            try:
                known = (tag, self._store.get(key).data)
            except ObjectNotFound:
                return  # removed between the listing and now
            self._seen[key] = known
        _take(known[1], kind, name, into)


def final_snapshot(verdict: Verdict | None) -> int | None:
    """The number of the snapshot that a run of a script ended with. A later one is by a node that had been cut off."""
    number = (verdict.result or {}).get("snapshot") if verdict is not None else None
    return int(number) if number is not None else None


def _state_of(record: RunRecord, statuses: dict[str, NodeStatus]) -> RunState:
    """Of a run that is not over."""
    if record.stop is not None:
        return RunState.STOPPING
    trains = any(status.state is NodeState.TRAINING for status in statuses.values())
    return RunState.RUNNING if trains else RunState.PENDING


def _machine_of(intent: NodeIntent, found: list[Machine]) -> Machine | None:
    """Of all machines that bear a node's name: the one that was written down, until its end is written down too."""
    recorded = next((machine for machine in found if machine.instance_id == intent.instance_id), None)
    if recorded is not None and (recorded.alive or intent.gone_at is None):
        return recorded
    return _foremost(found) if found else None


def _foremost(found: list[Machine]) -> Machine:
    """The one that runs; of several the newest."""
    return max(found, key=lambda machine: (machine.alive, machine.launched_at or 0.0))


def _take(data: bytes, kind: type[R], name: str, into: dict[str, R]) -> None:
    """Leave out what a power cut may damage: a store's `put` waits for no disk. Raises ObjectCorrupt for the rest."""
    try:
        into[name] = kind.from_bytes(data)
    except ObjectCorrupt as error:
        if kind not in _PUT:
            raise
        log.debug("%s is passed over: %s", name, error)


def read_spec(store: Store, run: str, incarnation: int) -> Spec:
    return Spec.model_validate(yaml.safe_load(store.get(layout.spec(run, incarnation)).data))


def read_verdict(store: Store, run: str, incarnation: int) -> Verdict | None:
    try:
        return Verdict.from_bytes(store.get(layout.verdict(run, incarnation)).data)
    except ObjectNotFound:
        return None


def list_runs(store: Store) -> list[str]:
    """Ids of all runs in the store."""
    names = {info.key.split("/")[1] for info in store.list("runs/") if info.key.endswith("/run.json")}
    return sorted(name for name in names)


def unknown_run(store: Store, run: str) -> UsageError:
    try:
        names = list_runs(store)
    except StoreError as error:
        return UsageError(f"there is no run {run} in {store.uri}, which cannot be listed either: {error}")
    there = f"there are: {', '.join(names)}" if names else "it holds no runs"
    return UsageError(f"there is no run {run} in {store.uri}; {there}")
