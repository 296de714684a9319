"""The training loop of one round: from the newest state to the end of the run, or to the next change of membership.

Everything that could differ between two executions is a function of the step number, so the loop has no hidden
state: what is not in `TrainingState` does not matter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from starling.infra.errors import StoreUnavailable
from starling.trainer.announce import Announcer
from starling.trainer.checkpoint.retention import best_interval
from starling.trainer.checkpoint.saver import Saver
from starling.trainer.comm import Comm
from starling.trainer.config import CheckpointPolicy, Training
from starling.trainer.control import Control, Request
from starling.trainer.data.feed import Feed, Wanted
from starling.trainer.data.order import EpochOrders, shard_samples, steps_per_epoch
from starling.trainer.evaluate import evaluate
from starling.trainer.memory import peak_gpu_memory
from starling.trainer.optim import learning_rate
from starling.trainer.phases import phase_at
from starling.trainer.progress import MetricsFile, ProgressFile, StepCounter
from starling.trainer.state import TrainingState
from starling.trainer.step import Stepper
from starling.trainer.task import Batch, Samples

log = logging.getLogger(__name__)

MEAN_TIME_BETWEEN_INTERRUPTIONS = 10 * 3600.0
"""Seconds of one spot node; a round number in the range of AWS's published interruption rates (under 5 % to over
20 % a month for most GPU types), on the careful side."""
LEAST_INTERVAL = 10.0
"""Seconds between two timed checkpoints, however cheap they are."""


class Outcome(StrEnum):
    """Why a round ended on purpose."""

    DONE = "done"
    STOP = "stop"
    LEAVE = "leave"
    JOIN = "join"


@dataclass(kw_only=True, slots=True)
class Loop:
    """Everything one rank trains with, and where it is."""

    training: Training
    checkpoint: CheckpointPolicy
    comm: Comm
    stepper: Stepper
    train: Samples
    val: Samples | None
    control: Control
    saver: Saver | None
    """On one rank of every node."""
    announcer: Announcer | None
    """On rank 0."""
    counter: StepCounter | None
    """On one rank of every node."""
    metrics: MetricsFile | None
    """On rank 0."""
    nodes: int
    progress: ProgressFile | None = None
    """On one rank of every node."""
    step: int = 0
    """Steps completed."""
    history: list[dict[str, Any]] = field(default_factory=list)
    inexact_since: int | None = None
    stored_step: int = -1
    """The newest step that was handed over for upload or is committed."""
    _feed: Feed | None = None
    """While it runs."""
    _one_reader: threading.Lock = field(default_factory=threading.Lock)
    """Users' samples are not for several threads: training and evaluation, which begins while training reads ahead."""
    _waiting: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds for which steps have waited for data, and seconds they took."""
    _sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _saved_at: float = field(default_factory=time.monotonic)
    _blocked: float = 0.05
    """Seconds the last checkpoint held training up."""

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train), self.training.global_batch)

    @property
    def total_steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    def run(self) -> Outcome:
        """Train until the run or the round is over; every rank returns the same.

        Raises:
            PeerLost: a peer is gone.
            StoreUnavailable: the final state could not be committed.
        """
        wanted = self._batches_from(self.step)
        shards = len(self.stepper.passes())
        with Feed(self.train, wanted, seed=self.training.seed, first=shards, turn=self._one_reader) as self._feed:
            return self._run()

    def _run(self) -> Outcome:
        first = self.step
        while self.step < self.total_steps:
            request, due = self._vote()
            if request is not None:
                return self._drain(request)
            if due:
                self._save(upload=True)
            self._one_step()
            if self.announcer and self.step == first + 1:
                self.announcer.first_step(self.step)
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch()
                self._save(upload=True)
            elif self.checkpoint.every_steps and self.step % self.checkpoint.every_steps == 0:
                self._save(upload=True)
        if not self._commit_now():
            raise StoreUnavailable(f"training is done, but the store did not take the state of step {self.step}")
        return Outcome.DONE

    def state(self, *, keep: bool) -> TrainingState:
        """The present state; its tensors may be those that training goes on to change. All ranks call it; where it is
        not kept, its tensors may be missing."""
        schedule = {"name": self.training.schedule.name, "next_lr": self._learning_rate(self.step)}
        state = self.stepper.state(self.step, keep=keep)
        state.schedule, state.history = schedule, list(self.history)
        state.inexact_since = self.inexact_since
        return state

    def _vote(self) -> tuple[Request | None, bool]:
        """Ask all ranks whether anybody was asked to stop, leave or let in, and whether a timed checkpoint is due."""
        asked = [int(self.control.is_asked(request)) for request in Request]
        *granted, due = self.comm.vote(*asked, int(self._timer_is_up()))
        return next((request for request in Request if granted[request]), None), bool(due)

    def _timer_is_up(self) -> bool:
        every = self.checkpoint.every_minutes
        if every is None or self.comm.rank != 0 or self.stored_step == self.step:
            return False
        if isinstance(every, str):
            mtbf = MEAN_TIME_BETWEEN_INTERRUPTIONS / self.nodes
            interval = max(LEAST_INTERVAL, best_interval(self._blocked, mtbf))
        else:
            interval = every * 60
        return time.monotonic() - self._saved_at > interval

    def _one_step(self) -> None:
        batch, spe = self.training.global_batch, self.steps_per_epoch
        counting = min(batch, len(self.train) - self.step % spe * batch)
        rate = self._learning_rate(self.step)
        self.stepper.enter_phase(phase_at(self.training.phases, self.step // spe))
        began, waited = time.monotonic(), self._waited()
        result = self.stepper.run(self.step, rate, counting, self._shard_batch)
        waited = self._waited() - waited
        self._waiting[0] += waited
        self._waiting[1] += time.monotonic() - began
        self.step += 1
        if self.counter:
            self.counter.write(self.step)
        counted = max(1.0, result.samples)  # with plain steps a rank's share of an epoch's tail may hold none
        loss = result.loss_sum / counted
        self._sums[0] += result.loss_sum
        self._sums[1] += result.samples
        if self.progress:
            share = self._waiting[0] / self._waiting[1]
            self.progress.update(self.step, loss=loss, checkpoint_step=self._committed_step(), data_wait_share=share)
        if self.metrics:
            scores = {name: value / counted for name, value in result.score_sums.items()}
            scores["data_wait_seconds"] = round(waited, 6)
            self.metrics.write(step=self.step, epoch=(self.step - 1) // spe, lr=rate, loss=loss, **scores)

    def _batches_from(self, first_step: int) -> Iterator[Wanted]:
        """What this rank reads from a step to the end of the run, in the order in which the stepper takes it."""
        training = self.training
        orders = EpochOrders(self.train, training.seed)
        shards = [shard for shard, counts in self.stepper.passes() if counts]
        for step in range(first_step, self.total_steps):
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            order = orders.of(epoch)
            for shard in shards:
                entries, weights = shard_samples(
                    order, training.global_batch, training.virtual_shards, step_in_epoch, shard
                )
                yield Wanted(shard, entries, weights, epoch)

    def _shard_batch(self, step: int, shard: int) -> tuple[Batch, torch.Tensor]:
        assert self._feed is not None
        return self._feed.take(shard)

    def _waited(self) -> float:
        return self._feed.waited if self._feed else 0.0

    def _learning_rate(self, step: int) -> float:
        return learning_rate(
            self.training.schedule,
            self.training.optimizer.lr,
            step=step,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
        )

    def _end_epoch(self) -> None:
        record: dict[str, Any] = {"epoch": self.step // self.steps_per_epoch, "step": self.step}
        if self.val is not None:
            self.stepper.settle_buffers()
            record |= {"val": evaluate(self.stepper, self.val, self.comm, self._alive, self._one_reader)}
        self.history.append(record)
        log.info("epoch %d done: %s", record["epoch"], record.get("val", {}))
        if self.metrics:
            memory = peak_gpu_memory(self.stepper.device)
            loss = self._sums[0] / max(1.0, self._sums[1])
            self.metrics.write(kind="epoch", train_loss=loss, **memory, **record)
            self.metrics.flush()
        self._sums = [0.0, 0.0]

    def _alive(self) -> None:
        if self.progress:
            self.progress.alive()

    def _drain(self, request: Request) -> Outcome:
        """End the round at this step boundary with nothing lost, then let everybody go at the same time."""
        log.info("draining at step %d: %s", self.step, request.name.lower())
        if request is Request.JOIN:
            self._save(upload=False)
            self._flush()
        elif not self._commit_now():
            log.error("step %d is on the disks of this round's nodes only: the store did not take it", self.step)
        self._end_progress()
        # Nobody leaves before all have saved: who forms the next round first ends this one for the rest.
        self.comm.barrier()
        return Outcome(request.name.lower())

    def _commit_now(self) -> bool:
        """Commit the present state, patiently; returns, equal on all ranks, whether it is committed."""
        for pause in (1.0, 2.0, 5.0, 10.0, 30.0, 0.0):
            self._save(upload=True)
            failed, late = self.comm.vote(int(self._flush() is not None), int(self._must_be_gone(within=pause)))
            if not failed:
                break
            self.stored_step = -1
            log.warning("step %d is not committed", self.step)
            if late:
                break
            time.sleep(pause)
        self._end_progress()
        return self.stored_step == self.step

    def _must_be_gone(self, *, within: float) -> bool:
        """Whether this node was asked to leave and its time is up in so many seconds."""
        deadline = self.control.deadline(Request.LEAVE)
        return deadline is not None and time.time() + within >= deadline

    def _save(self, *, upload: bool) -> None:
        if upload and self.stored_step == self.step:
            return
        began = time.monotonic()
        self.stepper.settle_buffers()
        state = self.state(keep=self.saver is not None)
        if self.saver:
            self.saver.save(state, upload=upload)
        self._blocked = time.monotonic() - began
        self._saved_at = time.monotonic()
        if upload:
            self.stored_step = self.step

    def _flush(self) -> Exception | None:
        return self.saver.flush() if self.saver else None

    def _committed_step(self) -> int | None:
        return self.announcer.committed_step if self.announcer else None

    def _end_progress(self) -> None:
        if self.progress:
            share = self._waiting[0] / self._waiting[1] if self._waiting[1] else None
            self.progress.update(
                self.step, loss=None, checkpoint_step=self._committed_step(), data_wait_share=share, force=True
            )
        if self.metrics:
            self.metrics.flush()
