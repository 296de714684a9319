"""Snapshots the folder of a running script: when it is due, and the folder is at rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from starling.infra.errors import StoreError
from starling.infra.snapshots.catalog import Commit, Superseded
from starling.infra.snapshots.content import Disturbed
from starling.infra.snapshots.listing import Listing
from starling.infra.supervision import join_seconds
from starling.trainer.script.ending import WritersSeen
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.rhythm import Rhythm

TICK = 0.5
"""Seconds between two looks at the folder; more if a look takes long."""
LOOK_SHARE = 20
"""Looking may take one part in so many of a processor's time."""
PATIENCE = 30.0
"""Seconds (or `every`, if that is longer) that a snapshot may be overdue before the user is told what is in the way."""

log = logging.getLogger(__name__)


class Snapshotter:
    """Runs beside the script, on the node of rank 0."""

    def __init__(
        self,
        keeper: Keeper,
        round_number: int,
        writes: Callable[[], str | None],
        intact: Callable[[], bool],
        on_commit: Callable[[Commit], None],
        on_delay: Callable[[str], None],
    ) -> None:
        """`writes`: a file of the folder that is open for writing; `intact`: no process has failed, so `writes` saw
        all files that are. The callbacks come from the snapshotter's thread."""
        self._keeper, self._job = keeper, keeper.job
        self._round = round_number
        self._writes, self._intact = writes, intact
        self._on_commit, self._on_delay = on_commit, on_delay
        self._halt = threading.Event()
        self._last = time.monotonic()
        self._newcomers_since: float | None = None
        self._delay_told = False
        self._seen: Listing = keeper.newest_listing
        self._rhythm = Rhythm(self._job.settle, since=time.time())
        self.changed_at = 0.0
        """Seconds since the epoch: when something in the folder, logs included, was last seen to have changed."""
        self.seen = WritersSeen(at=time.time(), written=None)
        self.let_in = False
        """Newcomers wait, and now is a good time for them."""
        self._thread = threading.Thread(target=self._work, name="snapshotter", daemon=True)
        self._thread.start()

    def newcomers_wait(self) -> None:
        """From now on the next thing that the script saves is snapshotted at once, and then newcomers are let in."""
        self._newcomers_since = self._newcomers_since or time.time()

    def rest(self) -> float:
        """Seconds without a change after which the folder counts as whole."""
        return self._rhythm.rest()

    def halt(self) -> None:
        """Begin nothing more, and call off what is under way; a file that is being uploaded is finished, as the next
        snapshot most likely holds it too. Returns at once."""
        self._halt.set()

    def join(self) -> None:
        """Return when nothing is under way any more; only after `halt`."""
        self._thread.join()

    def _work(self) -> None:
        pause = TICK
        while not self._halt.wait(pause):
            began = time.thread_time()
            try:
                listing = self._keeper.look()
                self._notice(listing)
                if not self._see_writers(listing):
                    break
                # Only looking is to be rare where it is dear: what a snapshot takes, it takes once.
                pause = max(TICK, LOOK_SHARE * (time.thread_time() - began))
                if self._is_due(listing) and (obstacle := self._try(listing)) is not None:
                    self._complain(obstacle)
            except OSError as error:  # a full disk, say: the script may run into it too, but it is not ours to end it
                self._complain(f"the folder cannot be read or copied: {error}")
            except Exception as error:  # a defect of ours must not end the snapshots of a script that runs on
                log.exception("this folder could not be snapshotted")
                self._complain(f"{type(error).__name__}: {error} (the node's log says where)")
            self._let_in_at_last()

    def _notice(self, listing: Listing) -> None:
        if self._seen.difference(listing, ()) is not None:
            self.changed_at = time.time()
        self._seen = listing
        self._rhythm.observe(listing.changes(self._job.logs).values())

    def _see_writers(self, listing: Listing) -> bool:
        """False once a process has failed: what it was writing cannot be seen any more."""
        at = time.time()
        written = self._writes() if self._keeper.is_new(listing, with_logs=False) else None
        if not self._intact():
            return False
        self.seen = WritersSeen(at=at, written=written)
        return True

    def _is_due(self, listing: Listing) -> bool:
        if not listing.files or not self._keeper.is_new(listing, with_logs=False):
            return False
        if time.monotonic() - self._last >= self._job.every:
            return True
        newest = listing.newest_change(self._job.logs)
        return self._newcomers_since is not None and newest is not None and newest[0] > self._newcomers_since

    def _try(self, listing: Listing) -> str | None:
        """Snapshot the folder; what was in the way, if something was."""
        newest = listing.newest_change(self._job.logs)
        if newest is not None and time.time() - newest[0] < self.rest():
            return (
                f"whenever it is looked at, {newest[1]} (or another file) changed less than {self.rest():.1f} s ago; "
                "add logs to command.logs, let the script save less often, or lower command.settle"
            )
        if (path := self.seen.written) is not None:
            return f"{path} is open for writing whenever it is looked at; if it is a log, add it to command.logs"
        try:
            commit = self._keeper.commit(listing, self._why, self._round, copied=True, halted=self._halt.is_set)
        except Disturbed as error:
            return f"the folder changed while it was copied ({error})"
        except StoreError as error:
            return f"the store cannot be used: {error}"
        except Superseded as error:
            return str(error)
        self._last = time.monotonic()
        self._delay_told = False
        self._on_commit(commit)
        self._keeper.retire(self._round)
        self.let_in = self._newcomers_since is not None
        return None

    @property
    def _why(self) -> str:
        return "interval" if self._newcomers_since is None else "join"

    def _complain(self, obstacle: str) -> None:
        overdue = time.monotonic() - self._last - self._job.every
        if overdue > max(PATIENCE, self._job.every) and not self._delay_told and not self._halt.is_set():
            self._delay_told = True
            self._on_delay(obstacle)

    def _let_in_at_last(self) -> None:
        since = self._newcomers_since
        if since is not None and time.time() - since > join_seconds(self._job.every):
            self.let_in = True
