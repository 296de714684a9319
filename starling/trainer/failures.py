"""Judges workers' own errors: trying again is right until it is plain that it does not help."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum

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


class Judgement(Enum):
    """What a failure means for what comes next."""

    TRY_AGAIN = "try again"
    NODE_UNFIT = "this node is at fault"
    """Another node in its place may well get further."""
    HOPELESS = "the run has failed"


def judge(failures: list[Failure], *, others: bool) -> Judgement:
    """What failures like these (oldest first) mean; `others`: whether the run has, or may have, more than one node.

    An error that is fatal ends the run. So do `TRIES` rounds in a row that failed and got no further than the first of
    them, unless a single node failed in all of them while others did not, or its machine is what is broken: then that
    node is unfit. Should its replacement fail there as well, the node was not the reason.
    """
    if any(failure.fatal for failure in failures):
        return Judgement.HOPELESS
    by_round: dict[int, list[Failure]] = {}
    for failure in failures:
        by_round.setdefault(failure.round, []).append(failure)
    last = [by_round[number] for number in sorted(by_round)][-TRIES:]
    furthest = [max(failure.step for failure in failed) for failed in last]
    if len(last) < TRIES or max(furthest) > furthest[0]:
        return Judgement.TRY_AGAIN
    recent = [failure for failed in last for failure in failed]
    alone = len({failure.node for failure in recent}) == 1
    if alone and (others or all(failure.machine for failure in recent)):
        return Judgement.NODE_UNFIT
    return Judgement.HOPELESS


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


def report_failure(store: Store, job: Job, failure: Failure) -> Judgement:
    """Record a failure and judge; if the run is hopeless, create its verdict."""
    prefix = layout.failures(job.run, job.incarnation)
    store.put(f"{prefix}{failure.at * 1e6:017.0f}-{job.node}-{failure.rank}.json", failure.to_bytes())
    Journal(store, job.run).write(
        EventKind.WORKER_FAILED,
        job.node,
        failure.error,
        at=failure.at,
        step=failure.step,
        rank=failure.rank,
        own=failure.traceback is not None,
    )
    failures = [Failure.from_bytes(store.get(info.key).data) for info in store.list(prefix)]
    judgement = judge(failures, others=job.max_nodes > 1)
    if judgement is not Judgement.HOPELESS:
        return judgement
    verdict = Verdict(
        state=RunState.FAILED,
        at=time.time(),
        by=job.node,
        reason=failure.error if failure.fatal else f"{failure.error} (no progress over {TRIES} tries)",
        step=failure.step,
        traceback=failure.traceback,
    )
    create_verdict(store, job.run, job.incarnation, verdict)
    return judgement


def _describe(exit_code: int) -> str:
    if exit_code == -9:
        return "a training process was killed by SIGKILL (out of memory?)"
    if exit_code < 0:
        return f"a training process was killed by signal {-exit_code}"
    return f"a training process ended with exit code {exit_code}"
