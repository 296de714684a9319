"""A node's supervisor for a script of the user's: TorchElastic's agent over our rendezvous, one round after the other.

A round: rank 0 says which snapshot all folders are to hold; when they do, the scripts start, with the environment that
torchrun would give them. Whoever has a reason to end the round on purpose (a notice, a stop, newcomers) says so in the
store, so that all nodes send SIGTERM: frameworks save only if all their ranks get it. When its scripts have ended,
rank 0 commits what they left in its folder, if that can be relied on (trust.py). Only then may anybody leave.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SubprocessContext

from starling.infra.errors import NoRoom, StoreUnavailable
from starling.infra.processes import PARENT
from starling.infra.store import Store
from starling.infra.supervision import EXIT_LEFT, EXIT_VERDICT
from starling.trainer.control import Control, Request
from starling.trainer.failures import TRIES, Judgement
from starling.trainer.fitness import declare_unfit
from starling.trainer.rendezvous import StoreRendezvous
from starling.trainer.script.conclusion import await_result, give_result, peer_is_lost, tell
from starling.trainer.script.ending import end_processes, grace_seconds
from starling.trainer.script.failing import describe_failure, stuck_failure, unkept_failure
from starling.trainer.script.job import ScriptJob
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.leftovers import keep_leftovers
from starling.trainer.script.opening import NothingWhole, open_round
from starling.trainer.script.output import ScriptOutput
from starling.trainer.script.processes import ROUND, ScriptProcesses
from starling.trainer.script.progress import ScriptProgress
from starling.trainer.script.round import (
    ASKED,
    BROKEN,
    DAMAGED,
    DONE,
    FAILURE,
    JOIN,
    PEER_LOST,
    STOP,
    Outcome,
    Round,
    RoundOver,
)
from starling.trainer.script.snapshotter import Snapshotter
from starling.trainer.script.telling import Teller
from starling.trainer.script.trust import judge
from starling.trainer.script.words import RoundDone, RoundEnd, RoundStart, Words

log = logging.getLogger(__name__)

MONITOR = 0.05
"""Seconds between two looks at the script."""
POLL = 0.2
"""Seconds between two looks for a word of the other nodes."""
LOSSES = 10
"""Rounds in a row that the same nodes lost, from the same content, before the run is failed."""
MISREADINGS = 2
"""Rounds in a row that could not begin as this node found files damaged, though they had been uploaded again."""


class ScriptSupervisor(LocalElasticAgent):
    """Forms rounds and runs the script in them until the run has a verdict or this node must go."""

    def __init__(self, job: ScriptJob, store: Store, rendezvous: StoreRendezvous) -> None:
        spec = WorkerSpec(
            role="default",  # as torchrun's
            local_world_size=job.ranks_per_node,
            rdzv_handler=rendezvous,
            entrypoint=sys.executable,
            # -P: a file in the user's folder must not stand in for a module of ours.
            args=("-P", "-m", "starling.trainer.script.launch", str(job.directory), *job.command),
            max_restarts=1_000_000,
            local_addr=job.address,
        )
        self._output = ScriptOutput(job.work_dir / "errors")
        super().__init__(spec, self._output)
        self._job = job
        self._run_store = store
        self._rendezvous_handler = rendezvous
        self._control = Control(job.work_dir)
        self._keeper = Keeper(store, job)
        self._teller = Teller(store, job, self._keeper.catalog)
        self._processes: ScriptProcesses | None = None
        self._broken: tuple[int, str, float] | None = None
        self._last_nodes: tuple[str, ...] = ()
        self._losses: list[tuple[tuple[str, ...], str]] = []
        self._misread = 0
        self._has_run = False

    def serve(self) -> int:
        """Round after round; returns the exit code. Raises RendezvousClosedError, RendezvousCancelled."""
        try:
            while True:
                self._rendezvous(self._worker_group)
                if (code := self._one_round()) is not None:
                    return code
        finally:
            if self._processes is not None:
                self._processes.kill()

    def _one_round(self) -> int | None:
        """From the rendezvous to the judgement; returns the exit code if this node's work is done."""
        this = self._this_round()
        leader = self._worker_group.workers[0]
        progress = ScriptProgress(
            self._job.work_dir,
            round_number=this.number,
            rank=leader.global_rank,
            world_size=leader.world_size,
            started=self._has_run,
        )
        progress.snapshot = lambda: self._keeper.newest.number if self._keeper.newest else None
        try:
            start, port = open_round(this, self._keeper, self._teller)
            outcome = self._run_scripts(this, start, port, progress)
        except RoundOver as over:
            outcome = Outcome(end=over.end, cause=over.end.cause)
        except (NoRoom, NothingWhole) as error:
            return declare_unfit(self._job.work_dir, str(error))
        finally:
            progress.close()
            this.words.close()
        log.info("round %d ended: %s", this.number, outcome.end.cause)
        return self._conclude(this, outcome)

    def _this_round(self) -> Round:
        rendezvous, job = self._rendezvous_handler, self._job
        rank = self._worker_group.group_rank
        assert rank is not None
        nodes = tuple(member.label for member in rendezvous.members)
        if rank == 0 and self._broken is not None:
            number, cause, at = self._broken
            lost = next((node for node in self._last_nodes if node not in nodes), None)
            self._teller.round_ended(number, cause, at, lost)
        self._broken, self._last_nodes = None, nodes
        return Round(
            number=rendezvous.round,
            node=job.node,
            rank=rank,
            nodes=nodes,
            words=Words(self._run_store, job.run, job.incarnation, rendezvous.round),
            control=self._control,
            rendezvous=rendezvous,
        )

    def _run_scripts(self, this: Round, start: RoundStart, port: int | None, progress: ScriptProgress) -> Outcome:
        """Start, watch and end the scripts, and keep what they left."""
        processes = self._processes = self._start_scripts(this, port)
        self._has_run, progress.started, self._misread = True, True, 0
        snapshotter = self._snapshotter(this, processes, progress) if this.leads else None
        end = self._watch(this, processes, snapshotter)
        heard = time.monotonic()
        progress.active_at = time.time
        codes = processes.exit_codes()
        until = None
        if end.cause in ASKED:
            upload = self._keeper.newest.seconds if self._keeper.newest else start.upload_seconds
            until = heard + grace_seconds(end.within, upload, self._job.grace)
        if snapshotter is not None:
            snapshotter.halt()
        seen = snapshotter.seen if snapshotter is not None else None
        ending = end_processes(processes, self._keeper, until, seen)
        if snapshotter is not None:
            snapshotter.join()  # only now: the script saves while an upload that was under way goes on
        self._processes = None
        self._pcontext = None  # and with it our ends of the pipes that the scripts wrote to
        self._output.ended()
        failure = None
        if end.cause == FAILURE and end.node == this.node:
            failure = describe_failure(self._job, this.number, start.content, codes, self._output)
        if snapshotter is None:
            return Outcome(end=end, cause=end.cause, failure=failure)
        trust = judge(ending, snapshotter.rest())
        unkept = keep_leftovers(this, self._keeper, self._teller, end.cause, trust, heard)
        if end.cause != DONE or unkept is None:
            return Outcome(end=end, cause=end.cause, failure=failure)
        if unkept.cause == FAILURE:
            failure = unkept_failure(self._job, this.number, start.content, unkept.reason, fatal=unkept.fatal)
        return Outcome(end=end, cause=unkept.cause, failure=failure)

    def _start_scripts(self, this: Round, port: int | None) -> ScriptProcesses:
        mark = f"{this.node}.{os.getpid()}.{this.number}"
        os.environ.update({ROUND: mark, PARENT: str(os.getpid())})
        if port is not None:
            self._worker_group.master_port = port  # type: ignore[assignment]  # torch declares it as always None
        self._start_workers(self._worker_group)
        self._output.started()
        assert isinstance(self._pcontext, SubprocessContext)
        handlers = self._pcontext.subprocess_handlers
        return ScriptProcesses(
            {local_rank: handler.proc for local_rank, handler in handlers.items()},
            mark,
            signal_group=not self._job.is_python,
        )

    def _snapshotter(self, this: Round, processes: ScriptProcesses, progress: ScriptProgress) -> Snapshotter:
        """Begin to watch the folder, and to say that the script lives, on the node of rank 0."""
        snapshotter = Snapshotter(
            self._keeper,
            this.number,
            writes=lambda: processes.writes(self._job.folder, self._job.logs),
            intact=lambda: not processes.failed(),
            on_commit=self._teller.committed,
            on_delay=self._teller.delayed,
        )
        began, self._output.printed_at = time.time(), 0.0
        progress.active_at = lambda: max(began, self._output.printed_at, snapshotter.changed_at)
        self._teller.round_began(
            this.number, self._worker_group.workers[0].world_size, this.nodes, self._keeper.newest, began
        )
        return snapshotter

    def _watch(self, this: Round, processes: ScriptProcesses, snapshotter: Snapshotter | None) -> RoundEnd:
        """Until the round is over; returns why."""
        finished, active = False, False
        while True:
            time.sleep(MONITOR)
            if processes.failed():
                # Whoever says so first failed by itself; the others' scripts failed because of that one.
                return this.end(FAILURE) or RoundEnd(cause=FAILURE, node=this.node)
            if (end := this.ended()) is not None:
                return end
            if processes.finished():
                finished = finished or self._say_finished(this)
                if finished and this.leads and self._all_finished(this) and (end := this.end(DONE)) is not None:
                    return end
            if snapshotter is not None:
                if not active and (self._output.printed_at or snapshotter.changed_at):
                    active = True
                    self._teller.active(this.number)
                if self._rendezvous_handler.num_nodes_waiting() > 0:
                    snapshotter.newcomers_wait()
                if snapshotter.let_in and (end := this.end(JOIN)) is not None:
                    return end

    def _say_finished(self, this: Round) -> bool:
        try:
            this.words.say(f"done/{this.rank}", RoundDone())
        except StoreUnavailable as error:
            log.warning("the others cannot be told that this node has finished: %s", error)
            return False
        return True

    def _all_finished(self, this: Round) -> bool:
        time.sleep(POLL if len(this.nodes) > 1 else 0)
        try:
            return len(this.nodes) == 1 or this.words.count("done") == len(this.nodes)
        except StoreUnavailable as error:
            log.warning("whether the others have finished cannot be read: %s", error)
            return False

    def _conclude(self, this: Round, outcome: Outcome) -> int | None:
        """What an ended round means for this node: an exit code, or None for the next round."""
        cause, ended_at = outcome.cause, time.time()
        if cause == FAILURE and outcome.end.cause == FAILURE and peer_is_lost(this):
            cause = PEER_LOST
        if this.leads and cause not in BROKEN:
            self._teller.round_ended(this.number, cause, ended_at)
        if outcome.end.cause not in BROKEN:
            leads = this.leads
            cause = give_result(this, self._teller, self._keeper.newest, cause) if leads else await_result(this, cause)
        if cause in BROKEN:
            self._broken = (this.number, cause, ended_at)
        if (code := self._judge(this, cause, outcome)) is not None:
            return code
        return EXIT_LEFT if self._control.is_asked(Request.LEAVE) else None

    def _judge(self, this: Round, cause: str, outcome: Outcome) -> int | None:
        """The exit code if the run is over, or this node is of no use to it."""
        judgement, failure = Judgement.TRY_AGAIN, outcome.failure
        if cause == FAILURE and failure is not None:
            self._remaining_restarts -= 1  # what scripts see as TORCHELASTIC_RESTART_COUNT
            judgement = tell(this, lambda: self._teller.failed(failure)) or judgement
            if judgement is Judgement.NODE_UNFIT:
                return declare_unfit(
                    self._job.work_dir, f"{TRIES} rounds in a row failed on this node, the last with: {failure.error}"
                )
        if cause == PEER_LOST and self._is_stuck(this):
            stuck = stuck_failure(self._job, this.number, LOSSES)
            judgement = tell(this, lambda: self._teller.failed(stuck)) or judgement
        if cause == DAMAGED:
            return self._misreading(this, outcome.end)
        if judgement is Judgement.HOPELESS or cause in (DONE, STOP):
            self._rendezvous_handler.set_closed()
            return EXIT_VERDICT
        return None

    def _misreading(self, this: Round, end: RoundEnd) -> int | None:
        """Files were found damaged: by now rank 0 has them whole, and uploads them again. Who finds them damaged even
        then is itself at fault."""
        if this.leads:
            self._keeper.distrust(end.damaged)
        if end.node != this.node:
            return None
        self._misread += 1
        if self._misread < MISREADINGS:
            return None
        return declare_unfit(
            self._job.work_dir, "files of a snapshot came out damaged here, and again when they had been uploaded anew"
        )

    def _is_stuck(self, this: Round) -> bool:
        """Whether the same nodes have lost each other again and again: nobody of them died."""
        content = self._keeper.newest.content if self._keeper.newest else ""
        self._losses.append((tuple(member.id for member in this.rendezvous.members), content))
        recent = self._losses[-LOSSES:]
        return len(recent) == LOSSES and len(set(recent)) == 1
