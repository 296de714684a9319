"""A run's snapshots in the store: read, committed, retired.

Order of writing: every file (only those that are not there), then the record, created once. So a snapshot is whole or
does not exist. Order of deleting: records first, then the files that no record names any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
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


class Superseded(Exception):
    """A later round of the run has made snapshots: what this one's folder holds does not count any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    snapshot: Snapshot
    uploaded_bytes: int
    """Only files that no earlier snapshot held are uploaded."""


class Catalog:
    """The snapshots of one run. One node at a time commits and retires; one that was cut off, and does not know yet
    that the others have gone on without it, is refused.

    Reading deletes nothing: what one reader finds damaged may be its own memory, disk or network. Whoever finds a file
    damaged keeps its SHA-256 in mind, and passes it to `newest` and `commit`.
    """

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

    def newest(
        self,
        passed_over: Callable[[int, str], None] = lambda number, reason: None,
        damaged: Collection[str] = (),
        upto: int | None = None,
    ) -> Snapshot | None:
        """The newest snapshot (but not after number `upto`) whose record can be read and whose files are all there, in
        their full size, and not among those known to be `damaged` (SHA-256).

        Contents are verified when they are downloaded. `passed_over` is told of every damaged one on the way.
        """
        sizes: dict[str, int] | None = None
        for number in reversed(self.numbers()):
            if upto is not None and number > upto:
                continue
            try:
                snapshot = self.read(number)
            except ObjectNotFound:
                continue  # retired since the listing
            except ObjectCorrupt as error:
                passed_over(number, str(error))
                continue
            sizes = self._sizes(damaged) if sizes is None else sizes
            lacking = [file.path for file in snapshot.files if sizes.get(file.sha256) != file.size]
            if not lacking:
                return snapshot
            passed_over(number, f"{lacking[0]} is missing, cut short or damaged in the store")
        return None

    def uri(self, number: int) -> str:
        return object_uri(self._store.uri, layout.snapshot(self._run, number))

    def commit(
        self,
        content: Content,
        *,
        why: str,
        incarnation: int,
        round_number: int,
        node: str,
        began: float,
        damaged: Collection[str] = (),
        halted: Callable[[], bool] = lambda: False,
    ) -> Commit:
        """Upload what the store lacks, `damaged` files (SHA-256) included, then create the record. `began`:
        time.monotonic() of the first look.

        Raises Disturbed if a file changed under our hands or `halted` says so, Superseded, StoreError.
        """
        sizes = self._sizes(damaged)
        uploaded = 0
        for file in content.files:
            if sizes.get(file.sha256) == file.size:
                continue
            if halted():
                raise Disturbed("called off")
            self._upload(file.sha256, content.sources.get(file.sha256))
            sizes[file.sha256] = file.size
            uploaded += file.size
        while True:
            numbers = self.numbers()
            self._refuse_superseded(numbers, incarnation, round_number)
            number = max(numbers, default=0) + 1
            snapshot = Snapshot(
                number=number,
                at=time.time(),
                why=why,
                incarnation=incarnation,
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
                continue  # another node committed just now: who of us two does not know yet that its round is over?

    def download(self, sha256: str, path: Path) -> None:
        """Raises ObjectNotFound, ObjectCorrupt."""
        self._store.download(layout.snapshot_file(self._run, sha256), path, sha256)

    def retire(self, keep: int, *, incarnation: int, round_number: int) -> list[int]:
        """Delete all but the `keep` newest snapshots, and the files that only they named; returns their numbers.

        Files that no snapshot ever named are deleted once they are `ABANDONED_AFTER` older than the newest snapshot.
        Raises Superseded: a later round may be about to use what this one holds for old.
        """
        numbers = self.numbers()
        self._refuse_superseded(numbers, incarnation, round_number)
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

    def _refuse_superseded(self, numbers: list[int], incarnation: int, round_number: int) -> None:
        for number in reversed(numbers):
            try:
                newest = self.read(number)
            except (ObjectCorrupt, ObjectNotFound) as error:
                log.warning("snapshot %d does not tell which round made it: %s", number, error)
                continue
            if (newest.incarnation, newest.round) > (incarnation, round_number):
                raise Superseded(
                    f"the run has gone on without this node: snapshot {number} was made in round {newest.round}, "
                    f"after round {round_number}"
                )
            return

    def _sizes(self, damaged: Collection[str]) -> dict[str, int]:
        """What the store holds, SHA-256 -> bytes; without what is known to be damaged there."""
        prefix = layout.snapshot_files(self._run)
        found = {info.key.removeprefix(prefix): info.size for info in self._store.list(prefix)}
        return {sha256: size for sha256, size in found.items() if sha256 not in damaged}

    def _upload(self, sha256: str, source: Path | None) -> None:
        if source is None:
            raise Disturbed("a file that an earlier snapshot held is gone from the store")
        try:
            uploaded = self._store.upload(source, layout.snapshot_file(self._run, sha256))
        except FileNotFoundError as error:
            raise Disturbed(f"{source.name} is gone") from error
        if uploaded != sha256:
            # What we have put there is not what its name promises.
            self._store.delete(layout.snapshot_file(self._run, sha256))
            raise Disturbed(f"{source.name} changed while it was uploaded")
