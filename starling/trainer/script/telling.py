"""What a script's supervisor tells the world: events, failures and verdicts. A store that is away costs only words."""

from __future__ import annotations

import logging
import time
from typing import Any

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, StoreError
from starling.infra.journal import Journal
from starling.infra.records import EventKind, Failure, RunRecord, RunState, Verdict
from starling.infra.snapshots.catalog import Catalog, Commit
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import Store
from starling.infra.verdicts import create_verdict
from starling.trainer.failures import TRIES, Judgement
from starling.trainer.script.failing import judge_script
from starling.trainer.script.job import ScriptJob

log = logging.getLogger(__name__)


class Teller:
    """Writes the events of one run from one node."""

    def __init__(self, store: Store, job: ScriptJob, catalog: Catalog) -> None:
        self._store, self._job, self._catalog = store, job, catalog
        self._journal = Journal(store, job.run)
        self._passed_over: set[int] = set()

    def round_began(
        self, number: int, world_size: int, nodes: tuple[str, ...], snapshot: Snapshot | None, at: float
    ) -> None:
        source = f"snapshot {snapshot.number}" if snapshot else "an empty folder"
        self._event(
            EventKind.ROUND,
            f"round {number} with world size {world_size} from {source}",
            at=at,
            round=number,
            world_size=world_size,
            nodes=list(nodes),
            snapshot=snapshot.number if snapshot else None,
            source="snapshot" if snapshot else "fresh",
        )

    def round_ended(self, number: int, cause: str, at: float, lost: str | None = None) -> None:
        what = f"round {number} ended: {cause}" + (f" ({lost})" if lost else "")
        self._event(EventKind.ROUND_ENDED, what, at=at, round=number, cause=cause, node=lost)

    def active(self, number: int) -> None:
        self._event(EventKind.SCRIPT_ACTIVE, f"the script shows life in round {number}", round=number)

    def committed(self, commit: Commit) -> None:
        snapshot = commit.snapshot
        left = f"; left out: {_some(snapshot.left_out)}" if snapshot.left_out else ""
        self._event(
            EventKind.SNAPSHOT,
            f"snapshot {snapshot.number} ({snapshot.why}): {len(snapshot.files)} files, "
            f"{commit.uploaded_bytes} of {snapshot.bytes} bytes uploaded in {snapshot.seconds:.2f} s{left}",
            number=snapshot.number,
            why=snapshot.why,
            files=len(snapshot.files),
            bytes=snapshot.bytes,
            uploaded_bytes=commit.uploaded_bytes,
            seconds=snapshot.seconds,
            uri=self._catalog.uri(snapshot.number),
        )

    def delayed(self, obstacle: str) -> None:
        self._event(EventKind.SNAPSHOT_DELAYED, f"no snapshot can be made: {obstacle}")

    def passed_over(self, number: int, reason: str) -> None:
        """Said once for each snapshot."""
        if number in self._passed_over:
            return
        self._passed_over.add(number)
        self._event(EventKind.SNAPSHOT_SKIPPED, f"snapshot {number} is damaged, passed over: {reason}", number=number)

    def dropped(self, number: int, reason: str) -> None:
        what = f"what the script wrote last in round {number} is not relied on, the newest snapshot counts: {reason}"
        self._event(EventKind.FOLDER_DROPPED, what, round=number)

    def failed(self, failure: Failure) -> Judgement:
        """Record a failure and judge; if the run is hopeless, create its verdict. Raises StoreError: try again."""
        job = self._job
        prefix = layout.failures(job.run, job.incarnation)
        try:
            self._store.create(f"{prefix}{failure.at * 1e6:017.0f}-{job.node}-{failure.rank}.json", failure.to_bytes())
            self._event(EventKind.WORKER_FAILED, failure.error, subject=job.node, at=failure.at, rank=failure.rank)
        except ObjectExists:
            log.info("this failure was recorded before; only the verdict was not")
        failures = []
        for info in self._store.list(prefix):
            try:
                failures.append(Failure.from_bytes(self._store.get(info.key).data))
            except (ObjectNotFound, ObjectCorrupt) as error:
                log.warning("a failure is passed over: %s", error)
        judgement = judge_script(failures, others=job.max_nodes > 1)
        if judgement is not Judgement.HOPELESS:
            return judgement
        tried = "" if failure.fatal else f" ({TRIES} tries in a row, and nothing new in the folder between them)"
        self._verdict(RunState.FAILED, f"{failure.error}{tried}", traceback=failure.traceback)
        return judgement

    def done(self, snapshot: Snapshot | None) -> None:
        reason = "every process of the script ended with exit code 0"
        if snapshot is None:
            reason += f"; it wrote nothing to {self._job.folder.name} (command.folder)"
        self._verdict(RunState.DONE, reason, snapshot=snapshot)

    def stopped(self, snapshot: Snapshot | None) -> None:
        record = RunRecord.from_bytes(self._store.get(layout.run_record(self._job.run)).data)
        self._verdict(RunState.STOPPED, record.stop.reason if record.stop else "stopped", snapshot=snapshot)

    def _verdict(
        self, state: RunState, reason: str, *, traceback: str | None = None, snapshot: Snapshot | None = None
    ) -> None:
        verdict = Verdict(
            state=state,
            at=time.time(),
            by=self._job.node,
            reason=reason,
            traceback=traceback,
            result={"snapshot": snapshot.number} if snapshot else None,
        )
        create_verdict(self._store, self._job.run, self._job.incarnation, verdict)

    def _event(
        self, kind: EventKind, reason: str, *, subject: str | None = None, at: float | None = None, **data: Any
    ) -> None:
        try:
            self._journal.write(kind, subject or self._job.run, reason, at=at, **data)
        except StoreError as error:
            log.warning("an event could not be written: %s", error)


def _some(left_out: dict[str, str]) -> str:
    named = [f"{path} ({why})" for path, why in sorted(left_out.items())[:3]]
    return ", ".join(named) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
