"""Judges workers' own errors: trying again is right until it is plain that it does not help."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from starling.infra import layout
from starling.infra.journal import Journal
from starling.infra.records import EventKind, Failure, RunState, Verdict
from starling.infra.store.base import Store
from starling.infra.verdicts import create_verdict
from starling.trainer.config import Job
from starling.trainer.progress import StepCounter

TRIES = 3
"""Failures at the same step after which the run is failed."""


def is_hopeless(failures: list[Failure]) -> bool:
    """Whether a run that has failed like this (oldest first) should be given up.

    It should if an error is fatal, or if the last `TRIES` rounds that failed got no further than the first of them.
    """
    if any(failure.fatal for failure in failures):
        return True
    furthest_by_round: dict[int, int] = {}
    for failure in failures:
        furthest_by_round[failure.round] = max(failure.step, furthest_by_round.get(failure.round, 0))
    steps = [step for _, step in sorted(furthest_by_round.items())]
    return len(steps) >= TRIES and max(steps[-TRIES:]) <= steps[-TRIES]


def collect_failures(job: Job, processes: Mapping[int, ProcessFailure], round_number: int) -> list[Failure]:
    """What the workers of this node said of their own errors; for one that was killed, what is known of it."""
    described = [Failure.from_bytes(path.read_bytes()) for path in sorted(job.work_dir.glob("failure-*.json"))]
    if described:
        return described
    step = max(0, StepCounter(job.work_dir / "steps").read())
    return [
        Failure(
            at=time.time(), node=job.node, rank=rank, round=round_number, step=step, error=_describe(process.exitcode)
        )
        for rank, process in processes.items()
    ]


def report_failure(store: Store, job: Job, failure: Failure) -> bool:
    """Record a failure; if the run is hopeless, create its verdict. Returns whether the run is over."""
    prefix = layout.failures(job.run, job.incarnation)
    store.put(f"{prefix}{failure.at * 1e6:017.0f}-{job.node}-{failure.rank}.json", failure.to_bytes())
    Journal(store, job.run).write(
        EventKind.WORKER_FAILED, job.node, failure.error, at=failure.at, step=failure.step, rank=failure.rank
    )
    failures = [Failure.from_bytes(store.get(info.key).data) for info in store.list(prefix)]
    if not is_hopeless(failures):
        return False
    verdict = Verdict(
        state=RunState.FAILED,
        at=time.time(),
        by=job.node,
        reason=failure.error if failure.fatal else f"{failure.error} (no progress over {TRIES} tries)",
        step=failure.step,
        traceback=failure.traceback,
    )
    create_verdict(store, job.run, job.incarnation, verdict)
    return True


def _describe(exit_code: int) -> str:
    if exit_code == -9:
        return "a training process was killed by SIGKILL (out of memory?)"
    if exit_code < 0:
        return f"a training process was killed by signal {-exit_code}"
    return f"a training process ended with exit code {exit_code}"
