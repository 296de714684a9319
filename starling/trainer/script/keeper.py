"""Keeps one node's folder: makes it equal to a snapshot, looks at it, and commits what is in it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable

from starling.infra.errors import StoreError
from starling.infra.snapshots.catalog import Catalog, Commit
from starling.infra.snapshots.content import Disturbed, KnownFiles, read_content
from starling.infra.snapshots.listing import Listing, look
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import restore
from starling.infra.store import Store
from starling.trainer.script.job import ScriptJob

RETRY = 2.0
"""Seconds between two tries with a store that does not answer."""

log = logging.getLogger(__name__)


class Keeper:
    """One node's folder. Thread-safe as far as `commit` goes: one at a time."""

    def __init__(self, store: Store, job: ScriptJob) -> None:
        self.job = job
        self.catalog = Catalog(store, job.run)
        self.newest: Snapshot | None = None
        """The newest snapshot that this node has made, or has made its folder equal to."""
        self.newest_listing = Listing()
        """What the folder held then."""
        self._known = KnownFiles()
        self._guard = threading.Lock()
        self._scratch = job.work_dir / "snapshots"

    def look(self) -> Listing:
        return look(self.job.folder)

    def restore(self, snapshot: Snapshot | None) -> int:
        """Make the folder equal to a snapshot, or remove it; returns the bytes that were downloaded."""
        folder = self.job.folder
        self._scratch.mkdir(parents=True, exist_ok=True)
        self.job.directory.mkdir(parents=True, exist_ok=True)
        downloaded = 0
        if snapshot is None:
            if folder.exists():
                shutil.rmtree(folder)
        else:
            downloaded = restore(self.catalog, snapshot, folder, self._scratch / "restore", self._known)
        self.newest, self.newest_listing = snapshot, self.look()
        return downloaded

    def is_new(self, listing: Listing, *, with_logs: bool) -> bool:
        """Whether the folder holds something that the newest snapshot does not."""
        return self.newest_listing.difference(listing, () if with_logs else self.job.logs) is not None

    def commit(
        self, listing: Listing, why: str, round_number: int, *, copied: bool, halted: Callable[[], bool] = lambda: False
    ) -> Commit:
        """Snapshot what was listed. `copied`: the script runs, so copies are made first, and nothing may have changed
        (but logs) by the time they are. Raises Disturbed, StoreError, OSError.
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
                    content, why=why, round_number=round_number, node=self.job.node, began=began, halted=halted
                )
            except Disturbed:
                self._known.forget()
                raise
            finally:
                shutil.rmtree(copies, ignore_errors=True)
            self._known.learn(content.files, listing)
            self.newest, self.newest_listing = done.snapshot, listing
            return done

    def commit_for_good(self, why: str, round_number: int, give_up: Callable[[], bool]) -> Commit | None:
        """`commit` of a folder nobody writes to any more, trying again while the store is away; None if given up."""
        while True:
            try:
                return self.commit(self.look(), why, round_number, copied=False)
            except (StoreError, Disturbed) as error:
                log.warning("the snapshot could not be made, trying again: %s", error)
            if give_up():
                return None
            time.sleep(RETRY)

    def outlived(self, stored: Snapshot | None) -> bool:
        """Whether this folder still holds a newer snapshot than the newest whole one in the store: that was damaged
        there, but not here."""
        mine = self.newest
        if mine is None or (stored is not None and stored.number >= mine.number):
            return False
        return not self.is_new(self.look(), with_logs=False)

    def repeat(self, round_number: int) -> Commit:
        """Commit the folder again, with all files that the store has not got (any more)."""
        self._known.forget()
        return self.commit(self.look(), "repair", round_number, copied=False)

    def retire(self) -> None:
        """Delete what is older than `keep` snapshots; a store that is away keeps it until next time."""
        try:
            self.catalog.retire(self.job.keep)
        except StoreError as error:
            log.warning("old snapshots could not be deleted: %s", error)
