"""A folder that is snapshotted, without anything that watches it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from starling.infra import layout
from starling.infra.snapshots.catalog import Catalog, Commit
from starling.infra.snapshots.content import KnownFiles, read_content
from starling.infra.snapshots.listing import look
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import restore
from starling.infra.store import Store

LOGS = ("*.log",)


class Folder:
    """A script's folder, and its snapshots."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self.store = path, store
        self.known = KnownFiles()
        self.catalog = Catalog(store, "r")
        path.mkdir()

    def write(self, name: str, data: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(data)

    def commit(self, *, round_number: int = 0, incarnation: int = 0, damaged: Collection[str] = ()) -> Commit:
        listing = look(self.path)
        content = read_content(self.path, listing, self.known, LOGS)
        done = self.catalog.commit(
            content,
            why="interval",
            incarnation=incarnation,
            round_number=round_number,
            node="r.0.0",
            began=time.monotonic(),
            damaged=damaged,
        )
        self.known.learn(content.files, listing)
        return done

    def restored(self, snapshot: Snapshot, name: str = "elsewhere") -> Path:
        target = self.path.parent / name
        restore(self.catalog, snapshot, target, self.path.parent / "aside")
        return target

    def blob(self, name: str, snapshot: Snapshot) -> str:
        (sha256,) = (file.sha256 for file in snapshot.files if file.path == name)
        return layout.snapshot_file("r", sha256)


def tree(folder: Path) -> dict[str, str]:
    """Every path with its content, target or nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text() if path.is_file() else "/"
    return found
