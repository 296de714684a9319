"""One training process of one round. Started by the supervisor; parse, build, train, report, end."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch

from starling.infra import layout
from starling.infra.errors import StoreUnavailable, UsageError
from starling.infra.files import write_atomically
from starling.infra.processes import die_with_parent
from starling.infra.records import Failure
from starling.infra.store import Store, object_uri, open_store
from starling.infra.store.change import first_word
from starling.infra.supervision import PROGRESS
from starling.trainer.agreement import require_same_content, require_same_counts
from starling.trainer.announce import Announcer, announce_done
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import committed_steps, manifest_key, read_manifest
from starling.trainer.checkpoint.saver import Commit, Origin, Saver
from starling.trainer.comm import Comm, PeerLost, process_group
from starling.trainer.config import Job, Training
from starling.trainer.control import Control
from starling.trainer.data.order import steps_per_epoch
from starling.trainer.determinism import NotDeterministic, device_fingerprint, set_up_device
from starling.trainer.loop import Loop, Outcome
from starling.trainer.progress import MetricsFile, ProgressFile, StepCounter
from starling.trainer.resume import SOURCES, Resumed, find_state
from starling.trainer.round import RoundInfo
from starling.trainer.seeding import seed_torch
from starling.trainer.state import WEIGHTS, weights_sha256
from starling.trainer.step import ExactStepper, PlainStepper, Stepper
from starling.trainer.task import Task
from starling.trainer.tasks.context import task_context
from starling.trainer.tasks.loading import load_task

log = logging.getLogger(__name__)

EXIT_PEER_LOST = 75
"""A peer or the store is gone: not this process' fault."""
STORE_PAUSE = 5.0
"""Seconds before a round that the store's absence ended may begin again."""
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What the operating system says when the machine, rather than the task, is at fault."""
WITNESSES = 3
"""Nodes that write the event of a round's beginning, under one name."""
EXIT_FAILED = 76
"""Its own error; the failure is described in the node's failure file."""
COLLECTIVE_TIMEOUT = 1800.0
"""Seconds a collective may wait. Deaths are noticed by closed connections and by the supervisors, so this only has to
exceed the longest step."""


def run_worker(job_path: str) -> str:
    """Take part in one round; returns the Outcome. Ends the process itself on any error."""
    die_with_parent()
    job = Job.read(Path(job_path))
    rank = int(os.environ["RANK"])
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s rank {rank} %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    counter = StepCounter(job.work_dir / "steps")
    log.info("started for a world of %s", os.environ["WORLD_SIZE"])
    try:
        return str(_take_part(job, rank, counter))
    except PeerLost as error:
        log.warning("a peer is gone, this round is over: %s", error)
        _end(EXIT_PEER_LOST)
    except StoreUnavailable as error:
        # Not the task's fault, and trying again may help; the supervisor bounds how often.
        log.error("the store is out of reach, this round is over: %s", error)
        time.sleep(STORE_PAUSE)
        _end(EXIT_PEER_LOST)
    except BaseException as error:  # the boundary of the process: everything is described, nothing goes on
        _describe_failure(job, rank, counter.read(), error)
        _end(EXIT_FAILED)


def failure_path(work_dir: Path, rank: int) -> Path:
    """Where a worker describes its own error for the supervisor."""
    return work_dir / f"failure-{rank}.json"


def _take_part(job: Job, rank: int, counter: StepCounter) -> Outcome:
    round_info = RoundInfo.read(job.work_dir)
    training = job.training
    device = set_up_device(training.device, exact=training.exact, threads=training.threads_per_rank)
    with process_group(rank, int(os.environ["WORLD_SIZE"]), device, COLLECTIVE_TIMEOUT) as comm:
        log.info("connected to %d peers", comm.world_size - 1)
        store = open_store(job.store_uri)
        task = load_task(job.task, task_context(job, store, job.work_dir.parent / "cache"))
        sha256 = task.data_sha256()
        require_same_content(comm, sha256)
        if comm.rank == 0:
            _pin_data(store, job, sha256)
        seed_torch(training.seed, "init")
        model = task.build_model()
        with _assembled(_Parts(job, round_info, comm, store, task, model, device, counter)) as loop:
            outcome = loop.run()
        if outcome is Outcome.DONE:
            if comm.rank == 0:
                _announce_done(job, store, task)
            comm.barrier()
        return outcome


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a loop is put together from."""

    job: Job
    round: RoundInfo
    comm: Comm
    store: Store
    task: Task
    model: torch.nn.Module
    device: torch.device
    counter: StepCounter

    @property
    def leads_node(self) -> bool:
        """Whether this rank saves and reports for its node."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    @property
    def tells(self) -> bool:
        """Whether this rank says where the round begins: not rank 0 alone, which may be lost before it has."""
        return self.leads_node and self.round.node_rank < WITNESSES


def _stepper_kind(training: Training) -> type[Stepper]:
    if training.strategy == "fsdp":
        from starling.trainer.sharded import FsdpStepper  # a second's worth of modules that others do without

        return FsdpStepper
    return ExactStepper if training.exact else PlainStepper


@contextlib.contextmanager
def _assembled(parts: _Parts) -> Iterator[Loop]:
    """Resume and build the loop; close its threads at the end."""
    job, comm, work = parts.job, parts.comm, parts.job.work_dir
    local = LocalCheckpoints(work / "checkpoints")
    skipped: list[tuple[int, str]] = []
    resumed = find_state(
        comm,
        parts.store,
        layout.checkpoints(job.run),
        local,
        last_step=parts.counter.read(),
        on_skip=lambda step, reason: skipped.append((step, reason)),
    )
    if resumed.state is None:
        _begin_with_weights(parts)
    stepper = _stepper_kind(job.training)(parts.task, parts.model, job.training, comm, parts.device)
    train, val = parts.task.train_samples(), parts.task.val_samples()
    require_same_counts(comm, train, val)
    witness = Announcer(parts.store, job.run, parts.round, resumed.stored_step) if parts.tells else None
    announcer = witness if comm.rank == 0 else None
    saver = _saver(parts, local, steps_per_epoch(len(train), job.training.global_batch), announcer)
    loop = Loop(
        training=job.training,
        checkpoint=job.checkpoint,
        comm=comm,
        stepper=stepper,
        train=train,
        val=val,
        control=Control(work),
        saver=saver,
        announcer=announcer,
        counter=parts.counter if parts.leads_node else None,
        metrics=MetricsFile(work / "metrics.jsonl") if comm.rank == 0 else None,
        nodes=len(parts.round.nodes),
    )
    _continue_from(resumed, loop, stepper)
    if saver and resumed.state and resumed.source in ("peer", "store"):
        # Were the rank that gave us the state to die now, this node could still go on from here.
        saver.save(resumed.state, upload=False)
    _note_fitness(parts, loop, announcer, resumed)
    resumed = replace(resumed, state=None)  # else every rank would keep its memory for the whole round
    _say_where_it_begins(parts, loop, resumed, skipped, witness)
    yield loop
    if saver:
        saver.close()
    if witness:
        witness.close()
    stepper.close()


def _say_where_it_begins(
    parts: _Parts, loop: Loop, resumed: Resumed, skipped: list[tuple[int, str]], witness: Announcer | None
) -> None:
    comm, number = parts.comm, parts.round.number
    # Rank 0's, for all who tell the same.
    microseconds, source = comm.gather_ints(int(time.time() * 1e6), SOURCES.index(resumed.source))[0]
    log.info("round %d: from step %d (%s)", number, loop.step, resumed.source)
    if parts.leads_node:
        path = parts.job.work_dir / PROGRESS
        loop.progress = ProgressFile(path, loop.total_steps, loop.steps_per_epoch, number, comm.rank, comm.world_size)
        loop.progress.update(loop.step, loss=None, checkpoint_step=None, force=True)
    if loop.announcer:
        for step, reason in skipped:
            loop.announcer.skipped(step, reason)
    if witness:
        witness.round_began(
            at=microseconds / 1e6,
            world_size=comm.world_size,
            resume_step=loop.step,
            last_step=resumed.last_step,
            source=SOURCES[source],
        )


def _saver(parts: _Parts, local: LocalCheckpoints, epoch_steps: int, announcer: Announcer | None) -> Saver | None:
    if not parts.leads_node:
        return None
    job = parts.job
    origin = Origin(
        run=job.run,
        incarnation=job.incarnation,
        round=parts.round.number,
        world_size=parts.comm.world_size,
        steps_per_epoch=epoch_steps,
        fingerprint=device_fingerprint(parts.device, job.training.threads_per_rank),
        code_sha256=job.code_sha256,
        keep=job.checkpoint.keep,
    )

    def on_commit(commit: Commit) -> None:
        if announcer:
            announcer.committed(commit)

    return Saver(
        parts.store,
        layout.checkpoints(job.run),
        local,
        origin,
        uploader=parts.round.node_rank,
        uploaders=len(parts.round.nodes),
        on_commit=on_commit,
    )


def _continue_from(resumed: Resumed, loop: Loop, stepper: Stepper) -> None:
    if resumed.state is None:
        return
    stepper.restore(resumed.state)
    loop.step = resumed.state.step
    loop.history = list(resumed.state.history)
    loop.inexact_since = resumed.state.inexact_since
    loop.stored_step = loop.step if resumed.stored_step == loop.step else -1
    if loop.counter:
        loop.counter.write(loop.step)


def _note_fitness(parts: _Parts, loop: Loop, announcer: Announcer | None, resumed: Resumed) -> None:
    """From here on the run is inexact if any member computes on another kind of device (the user allowed it), or if the
    bits depend on a number of ranks and it is another one now (so the user chose other nodes)."""
    reasons = []
    if parts.comm.vote(int(not parts.round.fit))[0]:
        reasons.append("a node with another device fingerprint takes part (on_mismatch: continue)")
    training, exact = parts.job.training, parts.job.training.exact
    now = parts.comm.world_size if training.strategy == "fsdp" else None
    if resumed.state and resumed.state.summed_over != now:
        before = resumed.state.summed_over
        reasons.append(f"strategy {training.strategy}: {_ranks(now)} go on with what {_ranks(before)} began")
    if (reasons or not exact) and loop.inexact_since is None:
        loop.inexact_since = loop.step
        if announcer and exact:
            announcer.inexact(loop.step, "; ".join(reasons))


def _ranks(count: int | None) -> str:
    return "replicated ranks" if count is None else f"{count} ranks of fsdp"


def _pin_data(store: Store, job: Job, sha256: str | None) -> None:
    """Let the first round say what the data is, and refuse any other afterwards. Raises UsageError."""
    pin = json.dumps({"dataset": job.dataset, "content_sha256": sha256}).encode()
    if first_word(store, layout.data_pin(job.run), pin) != pin:
        raise UsageError(
            f"data.dataset: the content of {job.dataset} has changed since the run began; "
            "prepare it as it was, or start a new run"
        )


def _begin_with_weights(parts: _Parts) -> None:
    """Give the model what `model.weights` names, and let the run's first beginning say what that was: another one, the
    first having left no state, must be the same. Raises UsageError."""
    job = parts.job
    modes = [(module, module.training) for module in parts.model.modules()]
    parts.task.initialise(parts.model)
    for module, training in modes:  # those of a process that resumes, which does not come by here
        module.training = training
    if job.model_weights is None:
        return
    tensors = {WEIGHTS + name: tensor for name, tensor in parts.model.state_dict().items()}
    sha256 = weights_sha256(tensors)
    if len({number for [number] in parts.comm.gather_ints(int(sha256[:15], 16))}) > 1:
        raise UsageError(
            f"model.weights: not all ranks began with the same weights; was {job.model_weights} changed meanwhile?"
        )
    if parts.comm.rank != 0 or not parts.round.fit:
        return
    pin = json.dumps({"weights": job.model_weights, "sha256": sha256}).encode()
    if first_word(parts.store, layout.weights_pin(job.run), pin) != pin:
        raise UsageError(
            f"model.weights: the content of {job.model_weights} has changed since the run began; "
            "put it back as it was, or start a new run"
        )


def _announce_done(job: Job, store: Store, task: Task) -> None:
    prefix = layout.checkpoints(job.run)
    newest = max(committed_steps(store, prefix), default=None)
    if newest is None:
        raise UsageError("training is done, but the store took no checkpoint; see the log for the reason")
    uri = object_uri(store.uri, manifest_key(prefix, newest))
    announce_done(store, job.run, job.incarnation, read_manifest(store, prefix, newest), uri, task.loss_name)


def _describe_failure(job: Job, rank: int, step: int, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    log.error("training failed at step %d\n%s", max(step, 0), text)
    failure = Failure(
        at=time.time(),
        node=job.node,
        rank=rank,
        round=RoundInfo.read(job.work_dir).number,
        step=max(step, 0),
        error=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        traceback=text,
        # The user's input or model is wrong: the next try would fail in the same way.
        fatal=isinstance(error, UsageError | NotDeterministic),
        machine=isinstance(error, OSError) and error.errno in MACHINE_ERRORS,
    )
    # Whole or not at all: the supervisor kills the node's other workers as soon as the first has ended.
    write_atomically(failure_path(job.work_dir, rank), failure.to_bytes())


def _end(code: int) -> NoReturn:
    """Exit without waiting for threads and destructors: a broken process group's can hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
