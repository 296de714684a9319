"""In processes of their own, on one device: what a step costs, how fast images go through, how long saving holds up."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.saving import Ours, Place, TorchSave, Way
from benchmarks.taking_turns import InMemoryImages, Match, now, our_loop
from starling.infra.errors import StarlingError
from starling.trainer.comm import process_group
from starling.trainer.determinism import set_up_device
from starling.trainer.progress import StepCounter

Case = TypeVar("Case")
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Of our loop over images in memory."""

    images_per_second: list[float]
    """One entry a stretch of steps."""
    peak_bytes: int
    """GPU memory that torch had in use at most; 0 on the CPU."""


@dataclass(kw_only=True, slots=True)
class Stalls:
    """Seconds for which each save held training up."""

    state_bytes: int
    ours: list[float] = field(default_factory=list)
    torch_save: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """What to save, where from, how often."""

    match: Match
    times: int


def in_own_process(measure: Callable[[Case], Found], case: Case) -> Found | str:
    """What `measure` finds in a new process, with a device that nobody has used; or why it cannot be measured here."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, case).result()
        except torch.OutOfMemoryError:
            return "out of memory"
        except StarlingError as error:
            return str(error)


def speed(match: Match) -> Speed:
    """Train for a few stretches of steps; the first one warms up and does not count."""
    device = set_up_device(match.device, exact=match.exact, threads=match.threads)
    with process_group(0, 1, device, timeout=600.0) as comm, tempfile.TemporaryDirectory() as folder:
        loop = our_loop(match, comm, InMemoryImages(match), device, Path(folder))
        watch = _Watch(match, Path(folder) / "steps")
        loop.counter = watch
        loop.run()
        loop.stepper.close()
    return Speed(
        images_per_second=[match.stretch * match.global_batch / seconds for seconds in watch.seconds[1:]],
        peak_bytes=torch.cuda.max_memory_allocated() if match.device == "cuda" else 0,
    )


class _Watch(StepCounter):
    """Looks at the watch after every stretch of steps."""

    def __init__(self, match: Match, path: Path) -> None:
        super().__init__(path)
        self._match = match
        self._mark = now(match.device)[0]
        self.seconds: list[float] = []

    def write(self, step: int) -> None:
        super().write(step)
        if step % self._match.stretch == 0:
            mark = now(self._match.device)[0]
            self.seconds.append(mark - self._mark)
            self._mark = mark


def stalls(case: Saving) -> Stalls:
    """Save the model and its optimizer's momentum into a folder, in turn with each way; the first time warms up."""
    match = case.match
    device = set_up_device(match.device, exact=False, threads=match.threads)
    model = InMemoryImages(match).build_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    found = Stalls(state_bytes=2 * sum(parameter.nbytes for parameter in model.parameters()))
    with tempfile.TemporaryDirectory() as folder:
        place = Place(uri=f"{folder}/store", disk=Path(folder))
        ours = Ours(place)
        for turn in range(case.times + 1):
            for way, seconds in ((ours, found.ours), (TorchSave(place), found.torch_save)):
                optimizer.step()
                blocked = _blocked(way, turn, model, optimizer, match.device)
                seconds.extend([blocked] if turn else [])
        ours.close()
    return found


def _blocked(way: Way, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, device: str) -> float:
    began = now(device)[0]
    way.save(step, model, optimizer)
    seconds = time.perf_counter() - began
    while not way.done():
        time.sleep(0.01)
    return seconds


def median_rate(found: Speed) -> float:
    return statistics.median(found.images_per_second)
