"""Runs a model over a split exactly as training does, and keeps what it made of every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from starling.trainer.comm import Comm
from starling.trainer.data.feed import Foresighted
from starling.trainer.evaluate import evaluate
from starling.trainer.judging.loading import Loaded
from starling.trainer.step import Stepper
from starling.trainer.task import Batch, Samples, Scored

INDEX = "starling.index"
"""Name under which a batch carries the numbers of its samples to where their scores are seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a model made of the n samples of a split, in their order; on the CPU."""

    metrics: dict[str, float]
    """What training would report."""
    means: dict[str, torch.Tensor]
    """Name -> [n]: loss and scores, whose means are metrics."""
    outputs: dict[str, torch.Tensor]
    """Name -> [n, ...]: what all other metrics are made from."""

    def __len__(self) -> int:
        return len(next(iter(self.means.values())))


def measure(
    loaded: Loaded,
    samples: Samples,
    *,
    batch: int | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Evaluate; `tick(samples done)` is called after every batch.

    The metrics have the bits of the run's own evaluation if device, threads and data are the same, and `batch` (samples
    in a batch) is not given.
    """
    comm = Comm(0, 1, loaded.device, "none")
    stepper = _Recording(loaded, comm, tick)
    metrics = evaluate(stepper, _Numbered(samples), comm, batch_size=batch)
    means, outputs = stepper.rows(len(samples))
    return Measured(metrics=metrics, means=means, outputs=outputs)


class _Numbered:
    """Samples whose batches say which they are."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        return self._samples.batch(indices, seed=seed, epoch=epoch) | {INDEX: torch.tensor(list(indices))}

    def expect(self, entries: Sequence[int]) -> None:
        if isinstance(self._samples, Foresighted):
            self._samples.expect(entries)


class _Recording(Stepper):
    """Never steps; keeps every sample's scores. Of the samples that fill up a batch the first sight counts."""

    def __init__(self, loaded: Loaded, comm: Comm, tick: Callable[[int], None]) -> None:
        super().__init__(loaded.task, loaded.model, loaded.training, comm, loaded.device)
        self._tick = tick
        self._seen: set[int] = set()
        self._rows: dict[str, list[tuple[list[int], torch.Tensor]]] = {}
        self._outputs: set[str] = set()

    def forward(self, batch: Batch) -> Scored:
        numbers = batch.pop(INDEX).tolist()
        scored = super().forward(batch)
        fresh = [row for row, number in enumerate(numbers) if self._is_new(number)]
        for name, values in {self.task.loss_name: scored.losses, **scored.scores, **scored.outputs}.items():
            self._rows.setdefault(name, []).append(([numbers[row] for row in fresh], values.detach()[fresh].cpu()))
        self._outputs |= scored.outputs.keys()
        self._tick(len(self._seen))
        return scored

    def _is_new(self, number: int) -> bool:
        before = len(self._seen)
        self._seen.add(number)
        return len(self._seen) > before

    def rows(self, count: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """(means, outputs) of `Measured`."""
        whole = {name: _in_order(parts, count) for name, parts in self._rows.items()}
        outputs = {name: rows for name, rows in whole.items() if name in self._outputs}
        return {name: rows for name, rows in whole.items() if name not in outputs}, outputs


def _in_order(parts: list[tuple[list[int], torch.Tensor]], count: int) -> torch.Tensor:
    whole = parts[0][1].new_empty((count, *parts[0][1].shape[1:]))
    for numbers, rows in parts:
        whole[numbers] = rows
    return whole
