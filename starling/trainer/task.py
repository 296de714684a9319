"""What a task must offer: a model, samples, and per-sample losses. Built-in tasks and users' own are the same thing.

The loop, not the task, cuts batches into virtual shards, weighs the tail of an epoch, reduces and steps. A task
therefore returns one number *per sample*, and nothing in it may depend on the rank or the world size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from starling.infra.errors import UsageError
from starling.infra.store import Store

Batch = dict[str, torch.Tensor]
"""Named tensors with the same leading (sample) dimension."""


class Samples(Protocol):
    """Random access to one split of a dataset."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        """Collate these samples, on the CPU. Any augmentation is a pure function of (seed, epoch, sample index);
        `epoch=None` means evaluation: no augmentation."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a model made of a batch of b samples."""

    losses: torch.Tensor
    """[b] float: the training loss of each sample; the loop minimises their mean over the global batch."""
    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name -> [b]: further per-sample numbers whose means over a split are reported as metrics (accuracy: 0 or 1)."""
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name -> [b, ...] float: what `Task.summarise` needs of each sample of an evaluation; not used in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """What a task is built from."""

    options: dict[str, Any]
    """`task.options` of the spec."""
    model_name: str | None
    model_options: dict[str, Any]
    dataset: str | None
    """`data.dataset` of the spec."""
    store: Store
    cache_dir: Path
    """Node-local folder, shared by all ranks of the node and kept across rounds."""
    seed: int
    model_weights: str | None = None
    """`model.weights` of the spec."""
    data_fraction: float = 1.0
    """`data.fraction` of the spec."""
    cache_bytes: int | None = None
    """How much of the disk shards may take; None: half of what is free."""
    needs: dict[str, str] = field(default_factory=dict)
    """Name -> id of a run in the store that is done."""
    run: str | None = None
    """The run itself, which pins what it takes from those that it needs; None: outside of any run."""


class Task(ABC):
    """Base class of all tasks. Constructed once in every worker of every round."""

    loss_name: str = "loss"
    """What the mean of `Scored.losses` is called in metrics."""

    def __init__(self, context: TaskContext) -> None:
        self.context = context

    def data_sha256(self) -> str | None:
        """What identifies the data's content; the run refuses to go on over other data. None: nothing does."""
        return None

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """A freshly initialised model on the CPU, float32. The loop has seeded torch before this call."""

    def initialise(self, model: torch.nn.Module) -> None:
        """Give the model of a run that begins the weights it starts from (`model.weights`); others resume their own.
        Raises UsageError if there are no such weights."""
        if self.context.model_weights is not None:
            raise UsageError(
                "model.weights: this task has no way to start from weights; define Task.initialise, or drop it"
            )

    def parts(self, model: torch.nn.Module) -> dict[str, list[str]]:
        """Name -> prefixes of the parameters' names: what `training.phases` may call so ("head", "backbone")."""
        return {}

    @abstractmethod
    def train_samples(self) -> Samples: ...

    @abstractmethod
    def val_samples(self) -> Samples | None:
        """Samples to evaluate after every epoch; None for no evaluation."""

    @abstractmethod
    def score(self, model: torch.nn.Module, batch: Batch) -> Scored:
        """Run the model on a batch that is on its device."""

    def summarise(self, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Metrics that are no means over samples (AUC, kappa), from the `Scored.outputs` of a whole split, on the CPU,
        in the order of its samples. Every rank calls it with the same tensors."""
        return {}


@runtime_checkable
class Classifies(Protocol):
    """What a task that sorts images into classes offers besides: with it `starling evaluate` can report on classes, and
    `starling predict` works. Its `Scored.outputs` hold "probabilities" [b, classes] and "labels" [b] (positions in
    `class_names`)."""

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities."""
        ...

    def probabilities(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """[b, classes] float, each row summing to 1, of a batch that is on the model's device. Needs no labels."""
        ...

    def image_batch(self, images: list[bytes]) -> Batch:
        """What PNG or JPEG files, prepared as the dataset was, look like in a batch of an evaluation, on the CPU.
        Raises ValueError or OSError for bytes that cannot be decoded."""
        ...


@runtime_checkable
class Grades(Classifies, Protocol):
    """Its classes are ordered, from the least to the most."""

    @property
    def positive_from(self) -> int:
        """The first class that counts as positive (of five grades 2: what is referred)."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """Samples that can be named to people."""

    def key(self, index: int) -> str:
        """The path of a sample's image in the source."""
        ...


@runtime_checkable
class OfPatients(Protocol):
    """Samples whose patients are known: several of them may be of one."""

    def patient(self, index: int) -> int:
        """A number that all images of a sample's patient share."""
        ...


@runtime_checkable
class Splits(Protocol):
    """A task whose data has more splits than it validates on."""

    def split_samples(self, split: str) -> Samples:
        """As `val_samples`, of another split. Raises UsageError that names the splits there are."""
        ...
