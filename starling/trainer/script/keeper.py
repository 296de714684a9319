"""Keeps one node's folder: makes it equal to a snapshot, looks at it, and commits what is in it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable

from starling.infra.errors import StoreError
from starling.infra.snapshots.catalog import Catalog, Commit, Superseded
from starling.infra.snapshots.content import Disturbed, KnownFiles, read_content
from starling.infra.snapshots.listing import Listing, look
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import DamagedFiles, restore
from starling.infra.store import Store
from starling.trainer.script.job import ScriptJob

RETRY = 2.0
"""Seconds between two tries with a store that does not answer."""

log = logging.getLogger(__name__)


class GaveUp(Exception):
    """What a script left could not be snapshotted in time; the message says why."""


class Keeper:
    """One node's folder. Thread-safe as far as `commit` goes: one at a time."""

    def __init__(self, store: Store, job: ScriptJob) -> None:
        self.job = job
        self.catalog = Catalog(store, job.run)
        self.newest: Snapshot | None = None
        """The newest snapshot that this node has made, or has made its folder equal to."""
        self.newest_listing = Listing()
        """What the folder held then."""
        self._damaged: set[str] = set()
        self._known = KnownFiles()
        self._guard = threading.Lock()
        self._scratch = job.work_dir / "snapshots"

    def stored(self, passed_over: Callable[[int, str], None]) -> Snapshot | None:
        """The newest snapshot in the store that is whole as far as anybody has told this node."""
        return self.catalog.newest(passed_over, self._damaged)

    def distrust(self, sha256s: Iterable[str]) -> None:
        """These files were found damaged in the store, by this node or by another one: whatever commits them next
        uploads them again."""
        self._damaged.update(sha256s)
        self._known.forget()

    def look(self) -> Listing:
        return look(self.job.folder)

    def restore(self, snapshot: Snapshot | None) -> int:
        """Make the folder equal to a snapshot, or remove it; returns the bytes that were downloaded. Raises
        DamagedFiles, which are distrusted from then on, NoRoom, StoreError, OSError."""
        folder = self.job.folder
        self._scratch.mkdir(parents=True, exist_ok=True)
        self.job.directory.mkdir(parents=True, exist_ok=True)
        downloaded = 0
        if snapshot is None:
            if folder.exists():
                shutil.rmtree(folder)
        else:
            try:
                downloaded = restore(self.catalog, snapshot, folder, self._scratch / "restore", self._known)
            except DamagedFiles as error:
                self.distrust(error.sha256s)
                raise
        self.newest, self.newest_listing = snapshot, self.look()
        return downloaded

    def is_new(self, listing: Listing, *, with_logs: bool) -> bool:
        """Whether the folder holds something that the newest snapshot does not."""
        return self.newest_listing.difference(listing, () if with_logs else self.job.logs) is not None

    def commit(
        self, listing: Listing, why: str, round_number: int, *, copied: bool, halted: Callable[[], bool] = lambda: False
    ) -> Commit:
        """Snapshot what was listed. `copied`: the script runs, so copies are made first, and nothing may have changed
        (but logs) by the time they are. Raises Disturbed, Superseded, StoreError, OSError.
        """
        began = time.monotonic()
        copies = self._scratch / "copies"
        with self._guard:
            shutil.rmtree(copies, ignore_errors=True)
            copies.mkdir(parents=True)
            try:
                content = read_content(
                    self.job.folder,
                    listing,
                    self._known,
                    self.job.logs,
                    copies=copies if copied else None,
                    halted=halted,
                )
                if (changed := listing.difference(self.look(), self.job.logs)) is not None:
                    raise Disturbed(f"{changed} changed while it was copied")
                done = self.catalog.commit(
                    content,
                    why=why,
                    incarnation=self.job.incarnation,
                    round_number=round_number,
                    node=self.job.node,
                    began=began,
                    damaged=self._damaged,
                    halted=halted,
                )
            except Disturbed:
                self._known.forget()
                raise
            finally:
                shutil.rmtree(copies, ignore_errors=True)
            self._known.learn(content.files, listing)
            self._damaged.difference_update(file.sha256 for file in content.files)
            self.newest, self.newest_listing = done.snapshot, listing
            return done

    def commit_for_good(self, why: str, round_number: int, give_up: Callable[[], bool]) -> Commit:
        """`commit` of a folder nobody writes to any more, trying again while the store is away or full. Raises
        GaveUp, Superseded."""
        while True:
            try:
                return self.commit(self.look(), why, round_number, copied=False)
            except (StoreError, Disturbed, OSError) as error:
                log.warning("the snapshot could not be made, trying again: %s", error)
                if give_up():
                    raise GaveUp(f"the store did not take it in time: {error}") from error
            time.sleep(RETRY)

    def outlived(self, stored: Snapshot | None) -> bool:
        """Whether this folder still holds a newer snapshot than the newest whole one in the store: that was damaged
        there, but not here."""
        mine = self.newest
        if mine is None or (stored is not None and stored.number >= mine.number):
            return False
        return not self.is_new(self.look(), with_logs=False)

    def repeat(self, round_number: int) -> Commit:
        """Commit the folder again, with all files that the store has not got, or only damaged. Raises like
        `commit`."""
        self._known.forget()
        return self.commit(self.look(), "repair", round_number, copied=False)

    def retire(self, round_number: int) -> None:
        """Delete what is older than `keep` snapshots; a store that is away keeps it until next time.

        Nothing is deleted while there are files that only this node, for all we know, finds damaged: what it passed
        over, and made newer snapshots instead of, may be whole.
        """
        if self._damaged:
            log.warning("old snapshots are kept: files of newer ones were found damaged")
            return
        try:
            self.catalog.retire(self.job.keep, incarnation=self.job.incarnation, round_number=round_number)
        except (StoreError, Superseded) as error:
            log.warning("old snapshots could not be deleted: %s", error)
