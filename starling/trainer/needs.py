"""What a run takes over from the runs that it needs: their specs, their checkpoints, their trained models.

Which checkpoint of each is meant is decided once, by whichever rank of the dependent run looks first, and written down
with the hash of its weights (`layout.needs_pin`, create-only). Every later round takes the same bits or none.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from starling.infra import layout
from starling.infra.clock import SystemClock
from starling.infra.errors import ObjectNotFound, UsageError
from starling.infra.records import Record, RunRecord
from starling.infra.store import Store
from starling.infra.store.change import first_word
from starling.infra.store.locks import locked
from starling.trainer.checkpoint.files import DamagedFile, read_tensors, write_tensors
from starling.trainer.checkpoint.load import load_checkpoint
from starling.trainer.checkpoint.manifest import Manifest, committed_steps, read_manifest
from starling.trainer.config import Job
from starling.trainer.memory import all_cores
from starling.trainer.models.vendor_files import PATIENCE
from starling.trainer.state import WEIGHTS, weights_sha256
from starling.trainer.task import Task, TaskContext
from starling.trainer.tasks.context import task_context
from starling.trainer.tasks.loading import load_task

log = logging.getLogger(__name__)


class Pin(Record):
    """Which state of a needed run is meant."""

    run: str
    step: int
    weights_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """One needed run, at the checkpoint that is meant."""

    name: str
    """What `needs` calls it."""
    record: RunRecord
    spec: dict[str, Any]
    """Resolved, of its last incarnation."""
    manifest: Manifest
    store: Store
    cache_dir: Path

    @property
    def run(self) -> str:
        return self.record.run

    def weights(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by the model's own names, on the CPU, every byte verified.

        Kept on the node's disk, so that neither its other ranks nor later rounds fetch them again.
        """
        kept = self.cache_dir / "needs" / f"{self.manifest.weights_sha256}.safetensors"
        tensors = self._read(kept) or self._fetch(kept)
        return {name.removeprefix(WEIGHTS): tensor for name, tensor in tensors.items()}

    def task(self) -> Task:
        """Its task, to rebuild its model. UsageError for one that only its own code folder knows."""
        if self.spec.get("command") is not None or ":" in self.spec["task"]["name"]:
            raise UsageError(
                f"needs.{self.name}: run {self.run} trains code of its own, so its model cannot be rebuilt here; name "
                "a run of a built-in task"
            )
        told = {"run": self.run, "incarnation": self.record.incarnation, "spec": self.spec}
        nowhere = {"node": "", "address": "", "store_uri": self.store.uri, "code_sha256": None, "work_dir": "."}
        job = Job.of({**told, **nowhere})
        return load_task(job.task, task_context(job, self.store, self.cache_dir))

    def model(self, task: Task) -> torch.nn.Module:
        """Its model as it was trained, in evaluation mode and frozen, on the CPU. `task` is its `task()`.

        Draws no random numbers: what is built afterwards starts the same with and without it.
        """
        with torch.random.fork_rng(devices=[]):
            model = task.build_model()
        try:
            model.load_state_dict(self.weights())
        except RuntimeError as error:
            raise UsageError(
                f"needs.{self.name}: the weights of run {self.run} do not fit its model: {error}"
            ) from error
        return model.eval().requires_grad_(False)

    def _fetch(self, kept: Path) -> dict[str, torch.Tensor]:
        """All ranks of a node want it at once: one fetches, the others read what it keeps."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.parent, kept.name, SystemClock(), PATIENCE):
            if (there := self._read(kept)) is not None:
                return there
            state = load_checkpoint(self.store, self.manifest)
            tensors = {name: tensor for name, tensor in state.tensors.items() if name.startswith(WEIGHTS)}
            _keep(tensors, kept)
        return tensors

    def _read(self, kept: Path) -> dict[str, torch.Tensor] | None:
        if not kept.exists():
            return None
        try:
            tensors = read_tensors(kept)
        except DamagedFile as error:
            log.warning("the kept weights of run %s are damaged, they are fetched again: %s", self.run, error)
            return None
        return tensors if weights_sha256(tensors, all_cores()) == self.manifest.weights_sha256 else None


def needed(context: TaskContext, name: str) -> Needed:
    """The run that the spec's `needs` calls `name`, at the checkpoint that this run is pinned to.

    Raises:
        UsageError: there is no such need, that run is gone or has no checkpoint, or the checkpoint this run began with
            is gone or has changed.
    """
    if name not in context.needs:
        there = f"there are: {', '.join(context.needs)}" if context.needs else "the spec has none"
        raise UsageError(f"needs: nothing is called {name!r}; {there} (needs: {{{name}: SPEC.yaml}})")
    store, run = context.store, context.needs[name]
    pin = _pins(context, name)[name]
    try:
        record = RunRecord.from_bytes(store.get(layout.run_record(run)).data)
        manifest = read_manifest(store, layout.checkpoints(run), pin.step)
    except ObjectNotFound as error:
        raise UsageError(f"needs.{name}: the checkpoint of step {pin.step} of run {run} is gone: {error}") from error
    if manifest.weights_sha256 != pin.weights_sha256:
        raise UsageError(
            f"needs.{name}: step {pin.step} of run {run} has other weights now ({manifest.weights_sha256[:12]}) than "
            f"when this run began ({pin.weights_sha256[:12]}); start a new run"
        )
    spec: dict[str, Any] = yaml.safe_load(store.get(layout.spec(run, record.incarnation)).data)
    return Needed(name=name, record=record, spec=spec, manifest=manifest, store=store, cache_dir=context.cache_dir)


def _pins(context: TaskContext, name: str) -> dict[str, Pin]:
    """What this run is pinned to; decided now if nobody has yet. UsageError if `name` has nothing to take over."""
    pins = _decided(context)
    if pins is None:
        pins = _newest(context)
        if name in pins and context.run is not None:
            pins = _decide(context.store, layout.needs_pin(context.run), pins)
    if name not in pins:
        raise UsageError(f"needs.{name}: run {context.needs[name]} has no checkpoint to take anything from")
    return pins


def _decided(context: TaskContext) -> dict[str, Pin] | None:
    if context.run is None:
        return None
    try:
        return _parse(context.store.get(layout.needs_pin(context.run)).data)
    except ObjectNotFound:
        return None


def _decide(store: Store, key: str, pins: dict[str, Pin]) -> dict[str, Pin]:
    text = json.dumps({name: pin.model_dump() for name, pin in pins.items()}, indent=1)
    return _parse(first_word(store, key, text.encode()))  # another rank may have been first


def _newest(context: TaskContext) -> dict[str, Pin]:
    """Of the needed runs that have checkpoints; a script's has none."""
    found = {name: _newest_of(context.store, run) for name, run in context.needs.items()}
    return {name: pin for name, pin in found.items() if pin is not None}


def _newest_of(store: Store, run: str) -> Pin | None:
    prefix = layout.checkpoints(run)
    step = max(committed_steps(store, prefix), default=None)
    if step is None:
        return None
    return Pin(run=run, step=step, weights_sha256=read_manifest(store, prefix, step).weights_sha256)


def _parse(data: bytes) -> dict[str, Pin]:
    return {name: Pin.model_validate(pin) for name, pin in json.loads(data).items()}


def _keep(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Whole or not at all; a disk without room is no reason not to train."""
    half = path.with_name(f".{secrets.token_hex(8)}")
    try:
        write_tensors(tensors, half)
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        log.warning("weights are not kept on this disk: %s", error)
