"""`fetch`: the folder of a script's run, out of the store."""

from __future__ import annotations

import secrets
from pathlib import Path

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, note, say, size
from starling.infra.errors import ObjectNotFound, StarlingError, UsageError
from starling.infra.snapshots.catalog import Catalog
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import DamagedFiles, restore
from starling.orchestrator.reading import final_snapshot


def fetch_verb(run: str, folder: Path, number: int | None, store_uri: str | None, *, as_json: bool) -> None:
    """Every byte is checked; the folder is there as a whole or not at all."""
    store = store_for(store_uri)
    opened = OpenRun(store, run)
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name a folder that is new or empty")
    catalog = Catalog(store, run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if number is not None:
        snapshot = _named(catalog, run, number)
        _fill(folder, catalog, snapshot)
    else:
        snapshot = _fill_with_newest(folder, catalog, run, final_snapshot(opened.verdict()))
    if as_json:
        emit({"run": run, "snapshot": snapshot.number, "folder": str(folder), "files": len(snapshot.files)})
    else:
        say(f"snapshot {snapshot.number} of {run}: {len(snapshot.files)} files, {size(snapshot.bytes)}, in {folder}")


def _fill_with_newest(folder: Path, catalog: Catalog, run: str, upto: int | None) -> Snapshot:
    """The newest snapshot that can be had whole from here. That is tried for each: sizes alone do not tell."""
    damaged: set[str] = set()
    told: set[int] = set()

    def passed_over(number: int, reason: str) -> None:
        if number not in told:
            note(f"snapshot {number} is damaged, passed over: {reason}")
        told.add(number)

    while (snapshot := catalog.newest(passed_over, damaged, upto)) is not None:
        try:
            _fill(folder, catalog, snapshot)
        except DamagedFiles as error:
            passed_over(snapshot.number, str(error))
            damaged |= error.sha256s
        else:
            return snapshot
    raise StarlingError(f"run {run} has no snapshot that could be fetched")


def _named(catalog: Catalog, run: str, number: int) -> Snapshot:
    try:
        return catalog.read(number)
    except ObjectNotFound:
        there = ", ".join(map(str, catalog.numbers())) or "none"
        raise UsageError(f"--snapshot {number}: run {run} has no such snapshot; there are: {there}") from None


def _fill(folder: Path, catalog: Catalog, snapshot: Snapshot) -> None:
    restore(catalog, snapshot, folder, folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
