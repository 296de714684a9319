"""Rank 0's announcements: events written off the training thread, and the verdict of a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starling.infra import layout
from starling.infra.errors import StoreError
from starling.infra.journal import Journal
from starling.infra.records import EventKind, NodeStatus, RunRecord, RunState, Verdict
from starling.infra.store.base import Store
from starling.infra.verdicts import create_verdict
from starling.trainer.checkpoint.manifest import Manifest, committed_steps
from starling.trainer.checkpoint.saver import Commit
from starling.trainer.round import RoundInfo

log = logging.getLogger(__name__)


class Announcer:
    """Writes the events of one round."""

    def __init__(self, store: Store, run: str, round_info: RoundInfo, committed_step: int) -> None:
        self._store = store
        self._run = run
        self._round = round_info
        self._journal = Journal(store, run)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="announcer")
        self.committed_step: int | None = committed_step if committed_step >= 0 else None

    def round_began(self, *, at: float, world_size: int, resume_step: int, last_step: int, source: str) -> None:
        """Say who trains from where, and how many steps are done again because of it; several may say the same."""

        def write() -> None:
            last = last_step if last_step >= 0 else self._last_reported_step()
            self._journal.write(
                EventKind.ROUND,
                self._run,
                f"round {self._round.number} with world size {world_size} from step {resume_step} ({source})",
                at=at,
                name=f"round-{self._round.number}",
                round=self._round.number,
                world_size=world_size,
                nodes=list(self._round.nodes),
                resume_step=resume_step,
                last_step=last,
                redone=max(0, last - resume_step),
                source=source,
            )

        self._later(write)

    def first_step(self, step: int) -> None:
        self._event(
            EventKind.FIRST_STEP,
            self._run,
            f"first step of round {self._round.number} completed",
            round=self._round.number,
            step=step,
        )

    def committed(self, commit: Commit) -> None:
        """A checkpoint exists."""
        step = commit.manifest.step
        self.committed_step = step
        self._event(
            EventKind.CHECKPOINT,
            str(step),
            f"step {step} committed in {commit.seconds:.2f} s",
            step=step,
            seconds=commit.seconds,
            bytes=commit.bytes,
            uri=commit.uri,
        )

    def skipped(self, step: int, reason: str) -> None:
        self._event(EventKind.CHECKPOINT_SKIPPED, str(step), f"damaged, passed over: {reason}", step=step)

    def inexact(self, step: int, reason: str) -> None:
        self._event(EventKind.INEXACT, self._run, reason, step=step)

    def close(self) -> None:
        """Wait until everything is written."""
        self._thread.shutdown(wait=True)

    def _event(self, kind: EventKind, subject: str, reason: str, **data: Any) -> None:
        at = time.time()
        self._later(lambda: self._journal.write(kind, subject, reason, at=at, **data))

    def _later(self, write: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                write()
            except StoreError as error:
                log.warning("an event could not be written: %s", error)

        self._thread.submit(guarded)

    def _last_reported_step(self) -> int:
        """The newest step in any node's status: all that is left when every member of a round is gone."""
        steps = [-1]
        for info in self._store.list(layout.nodes_of(self._run)):
            if info.key.endswith("/status.json"):
                status = NodeStatus.from_bytes(self._store.get(info.key).data)
                steps.append(status.progress.step if status.progress else -1)
        return max(steps)


def announce_done(store: Store, run: str, incarnation: int, manifest: Manifest, uri: str, loss_name: str) -> None:
    """Create the verdict of a run that is trained to its end; fine if it exists."""
    history = manifest.meta["history"]
    metrics = dict(history[-1].get("val", {})) if history else {}
    verdict = Verdict(
        state=RunState.DONE,
        at=time.time(),
        by="trainer",
        reason=f"all {manifest.step} steps are done",
        step=manifest.step,
        result={
            "weights_sha256": manifest.weights_sha256,
            "state_sha256": manifest.state_sha256,
            "checkpoint": {"uri": uri, "step": manifest.step},
            "metrics": metrics,
            "history": history,
            "loss_name": loss_name,
            "exact": manifest.exact,
        },
    )
    create_verdict(store, run, incarnation, verdict)


def announce_stopped(store: Store, run: str, incarnation: int) -> None:
    """Create the verdict of a run that was asked to stop and has drained; it names the step to go on from."""
    record = RunRecord.from_bytes(store.get(layout.run_record(run)).data)
    reason = record.stop.reason if record.stop else "stopped"
    newest = max(committed_steps(store, layout.checkpoints(run)), default=0)
    verdict = Verdict(state=RunState.STOPPED, at=time.time(), by="trainer", reason=reason, step=newest)
    create_verdict(store, run, incarnation, verdict)
