"""`fetch`: the folder of a script's run, out of the store."""

from __future__ import annotations

import secrets
from pathlib import Path

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, note, say, size
from starling.infra.errors import ObjectNotFound, StarlingError, UsageError
from starling.infra.snapshots.catalog import Catalog
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import restore


def fetch_verb(run: str, folder: Path, number: int | None, store_uri: str | None, *, as_json: bool) -> None:
    """Every byte is checked; the folder is there as a whole or not at all."""
    store = store_for(store_uri)
    OpenRun(store, run)
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name a folder that is new or empty")
    snapshot = _choose(Catalog(store, run), run, number)
    folder.parent.mkdir(parents=True, exist_ok=True)
    restore(Catalog(store, run), snapshot, folder, folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
    if as_json:
        emit({"run": run, "snapshot": snapshot.number, "folder": str(folder), "files": len(snapshot.files)})
    else:
        say(f"snapshot {snapshot.number} of {run}: {len(snapshot.files)} files, {size(snapshot.bytes)}, in {folder}")


def _choose(catalog: Catalog, run: str, number: int | None) -> Snapshot:
    if number is None:
        newest = catalog.newest(lambda damaged, reason: note(f"snapshot {damaged} is damaged, passed over: {reason}"))
        if newest is None:
            raise StarlingError(f"run {run} has no snapshot that could be fetched")
        return newest
    try:
        return catalog.read(number)
    except ObjectNotFound:
        there = ", ".join(map(str, catalog.numbers())) or "none"
        raise UsageError(f"--snapshot {number}: run {run} has no such snapshot; there are: {there}") from None
