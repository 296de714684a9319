"""A node's elastic supervisor: TorchElastic's agent over our rendezvous, with rounds that end at step boundaries.

What differs from plain torchrun, and why:

* Newcomers are let in by a drain (a file the workers vote on), not by killing the workers: no step is lost.
* Workers come from a forkserver that has torch imported already: milliseconds instead of seconds.
* A dead peer ends the round on proof, not after lapsed heartbeats.
* Restarts are unlimited; only a crash loop without progress ends the run, and it ends with the trainer's traceback.

Run as `python -m starling.trainer.supervisor --job job.json`. Exit codes: 0 the run has a verdict, 10 this node was
asked to leave and has drained, 11 this node is unfit (reason in unfit.txt); anything else is a crash.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousClosedError

from starling.infra import layout
from starling.infra.errors import StarlingError, StoreError
from starling.infra.journal import Journal
from starling.infra.processes import die_with_parent
from starling.infra.records import EventKind, Failure, Progress
from starling.infra.store import Store, open_store
from starling.infra.supervision import EXIT_LEFT, EXIT_VERDICT, PROGRESS
from starling.trainer.announce import announce_stopped
from starling.trainer.checkpoint.handover import hand_over
from starling.trainer.config import Job
from starling.trainer.control import Control, Request
from starling.trainer.determinism import CUBLAS_WORKSPACE
from starling.trainer.failures import TRIES, Judgement, collect_failures, report_failure
from starling.trainer.fitness import check_fitness, declare_unfit
from starling.trainer.loop import Outcome
from starling.trainer.progress import StepCounter
from starling.trainer.rendezvous import RendezvousCancelled, Settings, StoreRendezvous
from starling.trainer.round import RoundInfo
from starling.trainer.worker import EXIT_PEER_LOST, run_worker

log = logging.getLogger(__name__)

HAND_OVER_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds between tries to give the store what only this node has."""
JOIN_TIMEOUT = 7 * 24 * 3600.0
"""Seconds to wait for a group. The agent, not the rendezvous, decides when a node has been idle for too long."""
GRACE = 3
"""Seconds for training workers to notice by themselves that their round is over, before they are killed."""
LOSSES = 10
"""Peer losses in a row without a change of members or a completed step before the run is failed."""
MONITOR = 0.02
"""Seconds between two looks at the workers."""


class Supervisor(LocalElasticAgent):
    """Forms rounds and runs this node's workers in them until the run has a verdict or the node must go."""

    def __init__(self, job: Job, job_path: Path, store: Store, rendezvous: StoreRendezvous, fit: bool) -> None:
        spec = WorkerSpec(
            role="trainer",
            local_world_size=job.ranks_per_node,
            rdzv_handler=rendezvous,
            entrypoint=run_worker,
            args=(str(job_path),),
            max_restarts=1_000_000,
            monitor_interval=MONITOR,
            local_addr=job.address,
        )
        logs = DefaultLogsSpecs(log_dir=str(job.work_dir / "elastic"))
        super().__init__(spec, logs, start_method="forkserver")
        self._job = job
        self._run_store = store
        self._rendezvous_handler = rendezvous
        self._fit = fit
        self._control = Control(job.work_dir)
        self._ended: tuple[str, float, int] | None = None
        self._last_nodes: tuple[str, ...] = ()
        self._losses: list[tuple[tuple[str, ...], int]] = []
        self.exit_code = EXIT_VERDICT

    def _invoke_run(self, role: str = "") -> RunResult:
        """One round after the other; see the module's docstring for what ends it."""
        while True:
            self._control.withdraw(Request.JOIN)
            for rank_file in self._job.work_dir.glob("failure-*.json"):
                rank_file.unlink()
            self._initialize_workers(self._worker_group)
            result = self._watch_round()
            if self._is_over(result):
                return result

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """Tell the workers about their round before they start."""
        rendezvous = self._rendezvous_handler
        rank = worker_group.group_rank
        assert rank is not None
        nodes = tuple(member.label for member in rendezvous.members)
        if rank == 0 and self._ended is not None:
            lost = next((node for node in self._last_nodes if node not in nodes), None)
            self._tell_how_a_round_ended(*self._ended, lost)
        self._last_nodes = nodes
        RoundInfo(number=rendezvous.round, nodes=nodes, node_rank=rank, fit=self._fit).write(self._job.work_dir)
        return dict(super()._start_workers(worker_group))

    def _watch_round(self) -> RunResult:
        """Wait until the workers end by themselves, or their round is over without them."""
        over_since: float | None = None
        while True:
            time.sleep(MONITOR)
            result: RunResult = self._monitor_workers(self._worker_group)
            self._worker_group.state = result.state
            if result.state is not WorkerState.HEALTHY:
                # Local peers of a worker that died wait in collectives: nothing of theirs is worth waiting for.
                self._kill_workers()
                return result
            if self._round_is_lost():
                over_since = over_since or time.monotonic()
                # Workers that are still connecting to a peer that died would wait for it; they have nothing to lose.
                if time.monotonic() - over_since > GRACE or not self._is_training():
                    self._kill_workers()
                    return RunResult(state=WorkerState.STOPPED)
            elif self._rendezvous_handler.num_nodes_waiting() > 0 and not self._control.is_asked(Request.JOIN):
                self._control.ask(Request.JOIN)

    def _round_is_lost(self) -> bool:
        return self._rendezvous_handler.round_is_over() or bool(self._rendezvous_handler.lost_members())

    def _kill_workers(self) -> None:
        assert self._pcontext is not None
        self._pcontext.close(signal.SIGKILL, timeout=GRACE)

    def _is_training(self) -> bool:
        """Whether this node's workers have got as far as the loop in the present round."""
        try:
            progress = Progress.from_bytes((self._job.work_dir / PROGRESS).read_bytes())
        except FileNotFoundError:
            return False
        return progress.round == self._rendezvous_handler.round

    def _is_over(self, result: RunResult) -> bool:
        """Judge an ended round; sets the exit code if this supervisor's work is done."""
        outcome = self._outcome(result)
        ended = (outcome, time.time(), self._rendezvous_handler.round)
        log.info("round %d ended: %s", self._rendezvous_handler.round, outcome)
        # A round that ended on purpose is told of by its rank 0, which lives; a broken one by the next round's.
        on_purpose = outcome in set(Outcome)
        self._ended = None if on_purpose else ended
        if on_purpose and self._worker_group.group_rank == 0:
            self._tell_how_a_round_ended(*ended)
        if outcome == "failure":
            return self._report(collect_failures(self._job, result.failures, self._rendezvous_handler.round))
        if outcome == "peer-lost":
            return self._is_stuck() and self._report([self._stuck_failure()])
        if outcome == Outcome.STOP and self._worker_group.group_rank == 0:
            announce_stopped(self._run_store, self._job.run, self._job.incarnation)
        if outcome in (Outcome.DONE, Outcome.STOP):
            self._rendezvous_handler.set_closed()
            return True
        if self._control.is_asked(Request.LEAVE):
            self.exit_code = EXIT_LEFT
            return True
        return False

    def _report(self, failures: list[Failure]) -> bool:
        """Record own errors; whether the run has failed for good, in which case the other nodes are told, or this node
        is at fault."""
        judgements = [report_failure(self._run_store, self._job, failure) for failure in failures]
        if Judgement.HOPELESS in judgements:
            self._rendezvous_handler.set_closed()
            return True
        if Judgement.NODE_UNFIT in judgements:
            why = f"{TRIES} rounds in a row failed on this node, the last with: {failures[-1].error}"
            self.exit_code = declare_unfit(self._job.work_dir, why)
            return True
        return False

    def _is_stuck(self) -> bool:
        """Whether the same members have lost each other again and again at the same step: nobody of them died."""
        members = tuple(member.id for member in self._rendezvous_handler.members)
        self._losses.append((members, StepCounter(self._job.work_dir / "steps").read()))
        recent = self._losses[-LOSSES:]
        return len(recent) == LOSSES and len(set(recent)) == 1

    def _stuck_failure(self) -> Failure:
        return Failure(
            at=time.time(),
            node=self._job.node,
            rank=self._worker_group.group_rank or 0,
            round=self._rendezvous_handler.round,
            step=max(0, self._losses[-1][1]),
            error=f"the same nodes lost each other or the store {LOSSES} times in a row without completing a step",
            fatal=True,
        )

    def _outcome(self, result: RunResult) -> str:
        if result.state is WorkerState.SUCCEEDED:
            return str(next(iter(result.return_values.values())))
        own_errors = any(self._job.work_dir.glob("failure-*.json"))
        codes = {failure.exitcode for failure in result.failures.values()}
        return "failure" if own_errors or codes - {EXIT_PEER_LOST} else "peer-lost"

    def _tell_how_a_round_ended(self, cause: str, at: float, number: int, lost: str | None = None) -> None:
        what = f"round {number} ended: {cause}" + (f" ({lost})" if lost else "")
        journal = Journal(self._run_store, self._job.run)
        try:
            journal.write(EventKind.ROUND_ENDED, self._job.run, what, at=at, round=number, cause=cause, node=lost)
        except StoreError as error:
            # The record has a gap then, but training goes on.
            log.warning("an event could not be written: %s", error)


def main() -> int:
    """Parse, prepare, supervise, end."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, required=True, help="job.json as the node's agent wrote it")
    job_path = parser.parse_args().job
    job = Job.read(job_path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(levelname)s %(message)s")
    # A lost peer is daily business here, and workers describe their own errors themselves.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    os.environ.update(_environment(job))
    _import_torch_ahead(job)
    try:
        return _supervise(job, job_path)
    except StarlingError as error:
        log.error("%s", error)
        return 1


def _supervise(job: Job, job_path: Path) -> int:
    store = open_store(job.store_uri)
    misfit = check_fitness(store, job)
    if misfit is not None and job.training.exact and job.training.on_mismatch == "refuse":
        return declare_unfit(job.work_dir, misfit)
    settings = Settings(least=job.min_nodes, most=job.max_nodes, join_timeout=JOIN_TIMEOUT)
    prefix = layout.rendezvous(job.run, job.incarnation)
    control = Control(job.work_dir)
    rendezvous = StoreRendezvous(
        store,
        prefix,
        job.run,
        job.address,
        settings,
        label=job.node,
        cancelled=lambda: control.is_asked(Request.LEAVE) or control.is_asked(Request.STOP),
    )
    supervisor = Supervisor(job, job_path, store, rendezvous, fit=misfit is None)
    try:
        supervisor.run()
    except RendezvousClosedError:
        return EXIT_VERDICT
    except RendezvousCancelled:
        return EXIT_LEFT
    finally:
        _depart(rendezvous, store, job)
    return supervisor.exit_code


def _depart(rendezvous: StoreRendezvous, store: Store, job: Job) -> None:
    """Let the others go on first; then see to it that nothing goes with this node that nobody else has."""
    try:
        rendezvous.leave()
    except StoreError as error:
        log.warning("left without a word to the store; the closed pulse tells the others: %s", error)
    for pause in (*HAND_OVER_PAUSES, None):
        try:
            if (step := hand_over(store, job)) is not None:
                log.info("step %d was on the disks of this round's nodes only; it is committed now", step)
            return
        except StoreError as error:
            log.warning("what only this node's disk has cannot be handed over: %s", error)
        if pause is not None:
            time.sleep(pause)


def _environment(job: Job) -> dict[str, str]:
    """Settings that must be in place before workers start."""
    threads = str(job.training.threads_per_rank)
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # All nodes of a run have the same number of ranks: no exchange over the store is needed to number them.
        "TORCH_ELASTIC_WORKER_IDENTICAL": "1",
        CUBLAS_WORKSPACE[0]: CUBLAS_WORKSPACE[1],
    }


def _import_torch_ahead(job: Job) -> None:
    """Let the forkserver import what every worker needs, while the rendezvous is under way."""
    in_parts = ["starling.trainer.sharded"] if job.training.strategy == "fsdp" else []
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload", *in_parts])
    multiprocessing.forkserver.ensure_running()


if __name__ == "__main__":
    sys.exit(main())
