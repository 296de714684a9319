"""A run's snapshots in the store: read, committed, retired.

Order of writing: every file (only those that are not there), then the record, created once. So a snapshot is whole or
does not exist. Order of deleting: records first, then the files that no record names any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectExists, ObjectNotFound
from starling.infra.snapshots.content import Content, Disturbed
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import Store, object_uri

ABANDONED_AFTER = 3600.0
"""Seconds, by the store's clock, after which a file that no snapshot names was left by an upload that was killed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    snapshot: Snapshot
    uploaded_bytes: int
    """Only files that no earlier snapshot held are uploaded."""


class Catalog:
    """The snapshots of one run. One node at a time commits and retires."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run

    def numbers(self) -> list[int]:
        """Of all snapshots, oldest first."""
        prefix = layout.snapshots(self._run)
        names = (info.key.removeprefix(prefix) for info in self._store.list(prefix))
        return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())

    def read(self, number: int) -> Snapshot:
        """Raises ObjectNotFound, ObjectCorrupt."""
        return Snapshot.from_bytes(self._store.get(layout.snapshot(self._run, number)).data)

    def newest(self, passed_over: Callable[[int, str], None] = lambda number, reason: None) -> Snapshot | None:
        """The newest snapshot whose record can be read and whose files are all there, in their full size.

        Contents are verified when they are downloaded. `passed_over` is told of every damaged one on the way.
        """
        sizes: dict[str, int] | None = None
        for number in reversed(self.numbers()):
            try:
                snapshot = self.read(number)
            except ObjectNotFound:
                continue  # retired since the listing
            except ObjectCorrupt as error:
                passed_over(number, str(error))
                continue
            sizes = self._sizes() if sizes is None else sizes
            lacking = [file.path for file in snapshot.files if sizes.get(file.sha256) != file.size]
            if not lacking:
                return snapshot
            passed_over(number, f"{lacking[0]} is missing or cut short in the store")
        return None

    def uri(self, number: int) -> str:
        return object_uri(self._store.uri, layout.snapshot(self._run, number))

    def commit(
        self,
        content: Content,
        *,
        why: str,
        round_number: int,
        node: str,
        began: float,
        halted: Callable[[], bool] = lambda: False,
    ) -> Commit:
        """Upload what the store lacks, then create the record. `began`: time.monotonic() of the first look.

        Raises Disturbed if a file changed under our hands or `halted` says so, StoreError.
        """
        sizes = self._sizes()
        uploaded = 0
        for file in content.files:
            if sizes.get(file.sha256) == file.size:
                continue
            if halted():
                raise Disturbed("called off")
            self._upload(file.sha256, content.sources.get(file.sha256))
            sizes[file.sha256] = file.size
            uploaded += file.size
        number = max(self.numbers(), default=0) + 1
        while True:
            snapshot = Snapshot(
                number=number,
                at=time.time(),
                why=why,
                round=round_number,
                node=node,
                files=content.files,
                links=content.listing.links,
                folders={path: stamp.mode for path, stamp in content.listing.folders.items()},
                left_out=content.listing.left_out,
                content=content.digest,
                seconds=round(time.monotonic() - began, 3),
            )
            try:
                self._store.create(layout.snapshot(self._run, number), snapshot.to_bytes())
                return Commit(snapshot=snapshot, uploaded_bytes=uploaded)
            except ObjectExists:
                number += 1  # by a node that does not know yet that its round is over

    def discard_file(self, sha256: str) -> None:
        """Remove a file whose bytes are not the ones its name promises, so that nobody relies on it again."""
        self._store.delete(layout.snapshot_file(self._run, sha256))

    def download(self, sha256: str, path: Path) -> None:
        """Raises ObjectNotFound, ObjectCorrupt."""
        self._store.download(layout.snapshot_file(self._run, sha256), path, sha256)

    def retire(self, keep: int) -> list[int]:
        """Delete all but the `keep` newest snapshots, and the files that only they named; returns their numbers.

        Files that no snapshot ever named are deleted once they are `ABANDONED_AFTER` older than the newest snapshot.
        """
        numbers = self.numbers()
        old, kept = numbers[:-keep], numbers[-keep:]
        needed: set[str] = set()
        for number in kept:
            try:
                needed |= {file.sha256 for file in self.read(number).files}
            except ObjectCorrupt as error:
                log.warning("snapshot %d is damaged, so nothing is deleted: %s", number, error)
                return []
        named_by_old = self._names_of(old)
        for number in old:
            self._store.delete(layout.snapshot(self._run, number))
        newest_at = self._store.stat(layout.snapshot(self._run, kept[-1])).modified_at if kept else 0.0
        prefix = layout.snapshot_files(self._run)
        for info in list(self._store.list(prefix)):
            sha256 = info.key.removeprefix(prefix)
            abandoned = newest_at - info.modified_at > ABANDONED_AFTER
            if sha256 not in needed and (sha256 in named_by_old or abandoned):
                self._store.delete(info.key)
        return old

    def _names_of(self, numbers: list[int]) -> set[str]:
        """Files of snapshots that are about to go; those of a damaged one are found by their age, later."""
        named: set[str] = set()
        for number in numbers:
            try:
                named |= {file.sha256 for file in self.read(number).files}
            except (ObjectCorrupt, ObjectNotFound) as error:
                log.warning("snapshot %d is retired unread: %s", number, error)
        return named

    def _sizes(self) -> dict[str, int]:
        prefix = layout.snapshot_files(self._run)
        return {info.key.removeprefix(prefix): info.size for info in self._store.list(prefix)}

    def _upload(self, sha256: str, source: Path | None) -> None:
        if source is None:
            raise Disturbed("a file that an earlier snapshot held is gone from the store")
        try:
            uploaded = self._store.upload(source, layout.snapshot_file(self._run, sha256))
        except FileNotFoundError as error:
            raise Disturbed(f"{source.name} is gone") from error
        if uploaded != sha256:
            # What lies there now is not what its name promises.
            self.discard_file(sha256)
            raise Disturbed(f"{source.name} changed while it was uploaded")
