"""What a node is told to train: the parts of the resolved spec that the trainer needs, as plain values.

The orchestrator has validated the spec; here it is only read. A key that is missing is a bug, not a user's mistake.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """`training.optimizer` of the spec."""

    name: str
    lr: float
    momentum: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """`training.schedule` of the spec."""

    name: str
    warmup_steps: int
    final_factor: float
    step_epochs: tuple[int, ...]
    step_factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One of `training.phases` of the spec."""

    epochs: int | None
    rates: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """`training` of the spec."""

    epochs: int
    global_batch: int
    virtual_shards: int
    seed: int
    optimizer: Optimizer
    schedule: Schedule
    precision: str
    exact: bool
    clip_norm: float | None
    on_mismatch: str
    threads_per_rank: int
    device: str
    phases: tuple[Phase, ...] = ()
    strategy: str = "replicated"
    activation_checkpointing: bool = False
    channels_last: bool = False

    @property
    def shard_batch(self) -> int:
        """Samples in one virtual shard of one global batch."""
        return self.global_batch // self.virtual_shards


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointPolicy:
    """`checkpoint` of the spec."""

    every_steps: int | None
    every_minutes: float | str | None
    keep: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One node's part in one run, as the agent wrote it into job.json."""

    run: str
    incarnation: int
    node: str
    address: str
    store_uri: str
    work_dir: Path
    code_sha256: str | None
    task: str
    task_options: dict[str, Any]
    model: str | None
    model_options: dict[str, Any]
    model_weights: str | None
    dataset: str | None
    data_fraction: float
    data_cache: int | None
    """Bytes; None: half of what is free on the disk."""
    needs: dict[str, str]
    """Name -> id of a run that is done."""
    training: Training
    checkpoint: CheckpointPolicy
    min_nodes: int
    max_nodes: int
    ranks_per_node: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read job.json."""
        return cls.of(json.loads(path.read_text()))

    @classmethod
    def of(cls, job: dict[str, Any]) -> Self:
        """What job.json holds."""
        spec = job["spec"]
        model = spec["model"] or {"name": None, "options": {}, "weights": None}
        data = spec["data"] or {"dataset": None, "fraction": 1.0, "cache": None}
        nodes = spec["nodes"]
        return cls(
            run=job["run"],
            incarnation=job["incarnation"],
            node=job["node"],
            address=job["address"],
            store_uri=job["store_uri"],
            work_dir=Path(job["work_dir"]),
            code_sha256=job["code_sha256"],
            task=spec["task"]["name"],
            task_options=spec["task"]["options"],
            model=model["name"],
            model_options=model["options"],
            model_weights=model["weights"],
            dataset=data["dataset"],
            data_fraction=data["fraction"],
            data_cache=data["cache"],
            needs=spec["needs"],
            training=read_training(spec["training"]),
            checkpoint=CheckpointPolicy(**_only(CheckpointPolicy, spec["checkpoint"])),
            min_nodes=nodes["min"],
            max_nodes=nodes["max"],
            ranks_per_node=nodes["ranks_per_node"] or nodes["gpus_per_node"] or 1,
        )


def read_training(section: dict[str, Any]) -> Training:
    """Read `training` of a resolved spec."""
    values = _only(Training, section)
    optimizer = _only(Optimizer, section["optimizer"])
    schedule = _only(Schedule, section["schedule"])
    values["optimizer"] = Optimizer(**{**optimizer, "betas": tuple(optimizer["betas"])})
    values["phases"] = tuple(Phase(**_only(Phase, phase)) for phase in section["phases"])
    values["schedule"] = Schedule(**{**schedule, "step_epochs": tuple(schedule["step_epochs"])})
    return Training(**values)


def _only(kind: type[Any], section: dict[str, Any]) -> dict[str, Any]:
    return {name: section[name] for name in kind.__dataclass_fields__}
