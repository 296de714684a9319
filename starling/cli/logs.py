"""`logs`: what the nodes printed, from the store."""

from __future__ import annotations

import time

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, note
from starling.infra import layout
from starling.infra.errors import ObjectNotFound, UsageError
from starling.infra.store import Store
from starling.orchestrator.report import run_state

LOOK_SECONDS = 1.0


def logs_verb(run: str, store_uri: str | None, *, follow: bool, node: str | None, as_json: bool) -> None:
    if follow and as_json:
        raise UsageError("--json prints one document at the end, --follow has none; give one of them")
    store = store_for(store_uri)
    opened = OpenRun(store, run)
    _check_node(store, run, node)
    reader = _LogReader(store, run, node)
    if as_json:
        emit({"run": run, "logs": [{"node": node, "text": text} for node, text in reader.new()]})
        return
    try:
        while True:
            over = not follow or (run_state((view := opened.view()).facts, view.now).final and not view.facts.present)
            reader.print_new()
            if over:
                return
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        note("")


def _check_node(store: Store, run: str, node: str | None) -> None:
    if node is None:
        return
    known = sorted({info.key.split("/")[1] for info in store.list(layout.nodes_of(run))})
    if node not in known:
        raise UsageError(f"run {run} has no node {node}; it has had: {', '.join(known) or 'none yet'}")


class _LogReader:
    """Chunks are written once and in order, so each is read once."""

    def __init__(self, store: Store, run: str, node: str | None) -> None:
        self._store = store
        self._prefix = layout.logs(run)
        self._wanted = layout.logs(run, node)
        self._read: set[str] = set()
        self._last_node = ""

    def new(self) -> list[tuple[str, str]]:
        """(node, text) of what has come in since the last call, oldest chunk first."""
        infos = [info for info in self._store.list(self._wanted) if info.key not in self._read]
        found = []
        for info in sorted(infos, key=lambda info: (info.modified_at, info.key)):
            try:
                data = self._store.get(info.key).data
            except ObjectNotFound:
                continue  # removed in the meantime: old logs may be
            self._read.add(info.key)
            found.append((info.key.removeprefix(self._prefix).split("/")[0], data.decode(errors="replace")))
        return found

    def print_new(self) -> None:
        for node, text in self.new():
            if node != self._last_node:
                print(f"==> {node} <==")
                self._last_node = node
            print(text, end="" if text.endswith("\n") else "\n", flush=True)
