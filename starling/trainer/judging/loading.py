"""A run's model as it was trained: rebuilt from the run's own spec and code, with the weights of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from starling.infra import layout
from starling.infra.errors import ObjectNotFound, StarlingError, UsageError
from starling.infra.home import starling_home
from starling.infra.records import RunRecord
from starling.infra.store import Store
from starling.trainer.checkpoint.manifest import Manifest
from starling.trainer.comm import Comm
from starling.trainer.config import Job, Training
from starling.trainer.data.index import DatasetIndex, load_index
from starling.trainer.determinism import set_up_device
from starling.trainer.judging.checkpoints import Choice, choose_steps, load_first
from starling.trainer.judging.code import code_on_path
from starling.trainer.seeding import seed_torch
from starling.trainer.state import restore_model
from starling.trainer.step import Stepper
from starling.trainer.task import Task
from starling.trainer.tasks.classification import ClassificationTask
from starling.trainer.tasks.context import task_context
from starling.trainer.tasks.loading import load_task

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A trained model that is ready to be asked."""

    job: Job
    task: Task
    model: torch.nn.Module
    """On the CPU until a stepper brings it to `device`."""
    device: torch.device
    manifest: Manifest
    is_own_data: bool
    """Whether the task reads the very data that the run was trained on."""

    @property
    def index(self) -> DatasetIndex | None:
        """Of the dataset the task reads; None: it reads no prepared one."""
        if self.job.dataset is None:
            return None
        try:
            return load_index(self.task.context.store, self.job.dataset)
        except UsageError:  # there is none: the user's own task has found its data elsewhere under this name
            return None

    def stepper(self) -> Stepper:
        """Runs the model as training does."""
        return Stepper(self.task, self.model, self.training, Comm(0, 1, self.device, "none"), self.device)

    @property
    def training(self) -> Training:
        """As it bears on a model that is only looked at."""
        return replace(self.job.training, activation_checkpointing=False, phases=())


@contextmanager
def open_model(
    store: Store, run: str, choice: Choice, *, device: str = "auto", dataset: str | None = None, note: Note
) -> Iterator[Loaded]:
    """The model of a run at a checkpoint, for the length of a `with`: its own code is importable only there.

    `device`: cpu, cuda, or auto (what the spec says, as far as this machine has it). `dataset`: instead of the run's
    own, for the task to read from.

    Raises:
        UsageError: a script's run, no such checkpoint, no such device, a dataset of other classes.
        StarlingError: the checkpoint does not fit the model.
        StoreError: as they say.
    """
    record = RunRecord.from_bytes(store.get(layout.run_record(run)).data)
    own = job = _job(store, record)
    if dataset is not None:
        check_dataset(store, job.dataset, dataset, note)
        job = replace(job, dataset=dataset)
    steps = choose_steps(store, run, choice)
    place = _device(device, job.training, note)
    with code_on_path(store, record.code_sha256):
        task = _task(job, store)
        if dataset is not None and isinstance(task, ClassificationTask):
            _weigh_as_trained(task, own, store, note)
        seed_torch(job.training.seed, "init")
        model = task.build_model()
        manifest = _fill(model, store, run, steps, note)
        yield Loaded(
            job=job,
            task=task,
            model=model.eval(),
            device=place,
            manifest=manifest,
            is_own_data=dataset is None and _is_unchanged(store, run, task, note),
        )


def check_dataset(store: Store, own: str | None, other: str, note: Note) -> None:
    """Raises UsageError if `other` is no dataset, or one whose classes differ from those of `own`; it says how. Notes
    what may make the comparison unfair."""
    if own is None:
        raise UsageError(f"--data {other}: the run's task reads no dataset that another could stand for")
    ours, theirs = load_index(store, own), load_index(store, other)
    if (ours.prepared.size, ours.prepared.crop_retina) != (theirs.prepared.size, theirs.prepared.crop_retina):
        note(f"{other} was prepared in another way than {own}: {_prepared(theirs)}, not {_prepared(ours)}")
    trained, given = ours.classes, theirs.classes
    if trained == given:
        return
    lacking = [name for name in trained if name not in given]
    unknown = [name for name in given if name not in trained]
    differences = [
        f"it lacks {', '.join(lacking)}" if lacking else "",
        f"the model does not know {', '.join(unknown)}" if unknown else "",
        "" if lacking or unknown else f"they are in the order {', '.join(given)}, not {', '.join(trained)}",
    ]
    raise UsageError(
        f"--data {other}: its classes are not those of {own}, which the model was trained on: "
        f"{'; '.join(filter(None, differences))}"
    )


def _prepared(index: DatasetIndex) -> str:
    size = f"{index.prepared.size} pixels a side" if index.prepared.size is not None else "as large as they were"
    return size + (", cut to the retina" if index.prepared.crop_retina else "")


def _job(store: Store, record: RunRecord) -> Job:
    """As a node would have it, without a node."""
    spec: dict[str, Any] = yaml.safe_load(store.get(layout.spec(record.run, record.incarnation)).data)
    if spec.get("command") is not None:
        raise UsageError(
            f"run {record.run} runs a script of its own, whose model only the script knows; "
            f"get its files with: starling fetch {record.run} FOLDER"
        )
    return Job.of(
        {
            "run": record.run,
            "incarnation": record.incarnation,
            "node": "",
            "address": "",
            "store_uri": store.uri,
            "spec": spec,
            "code_sha256": record.code_sha256,
            "work_dir": str(Path()),
        }
    )


def _task(job: Job, store: Store) -> Task:
    return load_task(job.task, task_context(job, store, starling_home() / "cache"))


def _weigh_as_trained(task: ClassificationTask, own: Job, store: Store, note: Note) -> None:
    """On another dataset the loss is still the one that the run minimised."""
    trained = _task(own, store)
    assert isinstance(trained, ClassificationTask)
    _is_unchanged(store, own.run, trained, note)
    task.weigh_as(trained)


def _device(choice: str, training: Training, note: Note) -> torch.device:
    """With the threads and kernels of training, so that the numbers are those of training."""
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        raise UsageError("--device cuda: torch finds no usable GPU on this machine; use auto or cpu")
    if choice == "auto":
        choice = training.device
        if choice == "cuda" and not there:
            note("the run was trained on GPUs, and this machine has none: the last digits may differ")
            choice = "cpu"
    return set_up_device(choice, exact=training.exact, threads=training.threads_per_rank)


def _is_unchanged(store: Store, run: str, task: Task, note: Note) -> bool:
    """Whether the data is what the run's first round pinned."""
    try:
        pinned = json.loads(store.get(layout.data_pin(run)).data)["content_sha256"]
    except ObjectNotFound:
        return True  # no round has begun, so there is nothing that it could differ from
    if pinned != task.data_sha256():
        note("the content of the run's dataset has changed since it was trained")
        return False
    return True


def _fill(model: torch.nn.Module, store: Store, run: str, steps: list[int], note: Note) -> Manifest:
    state, manifest = load_first(store, run, steps, note)
    try:
        restore_model(state, model)
    except RuntimeError as error:
        raise StarlingError(
            f"the checkpoint of step {manifest.step} does not fit the model that run {run}'s spec describes: {error}"
        ) from error
    return manifest
