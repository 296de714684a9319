"""One rank of a world in which our real loop and a plain PyTorch loop take turns on the same model and data.

Both live in the same processes and share threads, process group and memory, and alternate every few steps, so that
whatever else the machine does hits both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from starling.infra.store import open_store
from starling.trainer.comm import Comm, process_group
from starling.trainer.config import CheckpointPolicy, Optimizer, Schedule, Training
from starling.trainer.control import Control
from starling.trainer.determinism import set_up_device
from starling.trainer.loop import Loop
from starling.trainer.models.build import build
from starling.trainer.progress import MetricsFile, ProgressFile, StepCounter
from starling.trainer.seeding import seed_torch
from starling.trainer.step import ExactStepper, PlainStepper
from starling.trainer.task import Batch, Samples, Scored, Task, TaskContext
from starling.trainer.tasks.losses import cross_entropy
from starling.trainer.tree import owned_shards

CLASSES = 100
LEARNING_RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What is to be compared."""

    world_size: int
    exact: bool
    threads: int
    """Of each rank."""
    model: str
    pixels: int
    global_batch: int
    virtual_shards: int
    plain_passes: int = 1
    """In how many passes, gradients accumulated, the plain loop does its share of a batch."""
    stretch: int
    """Steps in a turn."""
    turns: int
    """Turns of each side that count; one more before them warms up."""
    device: str = "cpu"
    precision: str = "fp32"
    activation_checkpointing: bool = False
    """Of our side only, as `channels_last`."""
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Averages over the steps of one turn."""

    seconds: float
    cpu: float
    """CPU seconds of rank 0: waits for nobody, so it tells the work apart from the noise."""
    sent: float
    """Bytes over the loopback interface, of all ranks."""


@dataclass(kw_only=True, slots=True)
class Timings:
    """What each side's turns took, one entry a turn, as rank 0 saw it."""

    ours: list[Turn] = field(default_factory=list)
    plain: list[Turn] = field(default_factory=list)


def play(match: Match, rank: int, folder: Path) -> Timings:
    """Take part as one rank (address and port from the environment); every rank returns, rank 0's numbers count."""
    device = set_up_device(match.device, exact=match.exact, threads=match.threads)
    with process_group(rank, match.world_size, device, timeout=600.0) as comm:
        return _timings(match, comm, device, folder)


def _timings(match: Match, comm: Comm, device: torch.device, folder: Path) -> Timings:
    """A function of its own, so that both sides are gone when the process group is destroyed."""
    task = InMemoryImages(match)
    loop = our_loop(match, comm, task, device, folder)
    turns = Turns(match, comm, PlainLoop(match, comm, task, device).steps, folder / f"steps-{comm.rank}")
    loop.counter = turns
    loop.run()
    loop.stepper.close()
    return turns.timings


class InMemoryImages(Task):
    """Random images, decoded once, for both sides."""

    def __init__(self, match: Match) -> None:
        super().__init__(
            TaskContext(
                options={},
                model_name=match.model,
                model_options={},
                dataset=None,
                store=open_store(os.devnull + ".never-written"),
                cache_dir=Path(os.devnull),
                seed=0,
            )
        )
        generator = torch.Generator().manual_seed(1)
        count = match.global_batch * 4
        self.images = torch.randint(
            0, 256, (count, 3, match.pixels, match.pixels), dtype=torch.uint8, generator=generator
        )
        self.labels = torch.randint(0, CLASSES, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        chosen = torch.as_tensor(indices)
        return {"image": self.images[chosen], "label": self.labels[chosen]}

    def build_model(self) -> torch.nn.Module:
        seed_torch(0, "init")
        return build(str(self.context.model_name), {}, num_classes=CLASSES, in_channels=3)

    def train_samples(self) -> Samples:
        return self

    def val_samples(self) -> None:
        return None

    def score(self, model: torch.nn.Module, batch: Batch) -> Scored:
        logits = model(normalised(batch["image"]))
        right = (logits.argmax(dim=1) == batch["label"]).float()
        return Scored(losses=cross_entropy(logits, batch["label"]), scores={"accuracy": right})


def normalised(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


class PlainLoop:
    """What one would write without us, with DistributedDataParallel if need be."""

    def __init__(self, match: Match, comm: Comm, task: InMemoryImages, device: torch.device) -> None:
        self._task = task
        self._device = device
        self._batch = match.global_batch
        per_shard = match.global_batch // match.virtual_shards
        mine = owned_shards(comm.rank, comm.world_size, match.virtual_shards)
        self._share = slice(mine.start * per_shard, mine.stop * per_shard)
        self._passes = match.plain_passes
        model = task.build_model().to(device)
        self._model = DistributedDataParallel(model) if comm.world_size > 1 else model
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self._order = torch.randperm(len(task), generator=torch.Generator().manual_seed(0))
        self._step = 0

    def steps(self, count: int) -> None:
        deterministic, tf32 = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = True  # torch's default
        for _ in range(count):
            self._one_step()
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.allow_tf32 = tf32

    def _one_step(self) -> None:
        begin = self._step * self._batch % len(self._task)
        indices = self._order[begin : begin + self._batch][self._share]
        self._optimizer.zero_grad()
        *before, last = indices.chunk(self._passes)
        with self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext():
            for part in before:
                self._one_pass(part)
        self._one_pass(last)
        self._optimizer.step()
        self._step += 1

    def _one_pass(self, indices: torch.Tensor) -> None:
        logits = self._model(normalised(self._task.images[indices].to(self._device)))
        labels = self._task.labels[indices].to(self._device)
        loss = torch.nn.functional.cross_entropy(logits, labels) / self._passes
        loss.backward()
        loss.item()


class Turns(StepCounter):
    """Our loop's step counter, which lets the other side have its turn after every stretch, and looks at the watch."""

    def __init__(self, match: Match, comm: Comm, plain_steps: Callable[[int], None], path: Path) -> None:
        super().__init__(path)
        self._match = match
        self._comm = comm
        self._plain_steps = plain_steps
        self._mark = (0.0, 0.0, 0)
        self.timings = Timings()

    def write(self, step: int) -> None:
        super().write(step)
        if step % self._match.stretch:
            return
        warm = step > self._match.stretch
        self._note(self.timings.ours, warm)
        self._begin()
        self._plain_steps(self._match.stretch)
        self._note(self.timings.plain, warm)
        self._begin()

    def _begin(self) -> None:
        self._comm.barrier()
        self._mark = now(self._match.device)

    def _note(self, turns: list[Turn], warm: bool) -> None:
        if warm:
            seconds, cpu, sent = (
                (after - before) / self._match.stretch
                for after, before in zip(now(self._match.device), self._mark, strict=True)
            )
            turns.append(Turn(seconds=seconds, cpu=cpu, sent=sent))


def now(device: str) -> tuple[float, float, int]:
    """Wall clock, CPU seconds and loopback bytes, once the device has done all that it was told to."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time(), loopback_bytes()


def loopback_bytes() -> int:
    """Bytes ever sent over the loopback interface, by anybody on this machine."""
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


def our_loop(match: Match, comm: Comm, task: Task, device: torch.device, folder: Path) -> Loop:
    steps = match.stretch * (match.turns + 1)
    training = Training(
        epochs=-(-steps // 4),
        global_batch=match.global_batch,
        virtual_shards=match.virtual_shards,
        seed=0,
        optimizer=Optimizer(
            name="sgd", lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8
        ),
        schedule=Schedule(name="constant", warmup_steps=0, final_factor=0.0, step_epochs=(), step_factor=0.1),
        precision=match.precision,
        exact=match.exact,
        clip_norm=None,
        on_mismatch="refuse",
        threads_per_rank=match.threads,
        device=match.device,
        activation_checkpointing=match.activation_checkpointing,
        channels_last=match.channels_last,
    )
    kind = ExactStepper if match.exact else PlainStepper
    first = comm.rank == 0
    return Loop(
        training=training,
        checkpoint=CheckpointPolicy(every_steps=None, every_minutes="auto", keep=3),
        comm=comm,
        stepper=kind(task, task.build_model(), training, comm, device),
        train=task.train_samples(),
        val=None,
        control=Control(folder / f"rank-{comm.rank}"),
        saver=None,  # what saving costs is benchmarks/checkpoint.py
        announcer=None,
        counter=None,
        metrics=MetricsFile(folder / "metrics.jsonl") if first else None,
        progress=ProgressFile(folder / "progress.json", steps, 4, 0, 0, match.world_size) if first else None,
        nodes=comm.world_size,
    )
