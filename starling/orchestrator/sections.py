"""The sections of a spec: one closed model each. `spec.py` puts them together."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from starling.infra.durations import parse_duration
from starling.infra.sizes import parse_size


class Problems(ValueError):
    """Rules broken between several keys: (key path below the model that raises, what is wrong and would be right)."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


class Section(BaseModel):
    """Base of every part of a spec: unknown keys and wrong types are refused, docstrings describe the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def parse_deadline(value: object) -> object:
    """Check an ISO timestamp; without a time zone it would mean something else on every machine."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f'{value!r} is no time with a time zone; write "2027-03-01T18:00:00+01:00" or "...Z"')
    return value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _short(schema: Any) -> Callable[[object], object]:
    """Marks a section that may be written as just its name."""
    return BeforeValidator(_named, json_schema_input_type=str | schema)  # type: ignore[return-value]


Duration = Annotated[
    float, BeforeValidator(parse_duration, json_schema_input_type=str | float), Field(gt=0, allow_inf_nan=False)
]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=str | int), Field(gt=0)]
Deadline = Annotated[str, BeforeValidator(parse_deadline), Field(json_schema_extra={"format": "date-time"})]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class TaskSection(Section):
    name: Annotated[str, Field(pattern=r"^(classification|grading|lesions|fusion|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]
    """classification, grading (ordered grades), lesions (a detector of patches), fusion (of two trained networks), or
    `module:Class` of a task in the `code` folder."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the task as they are."""

    @property
    def built_in(self) -> bool:
        return ":" not in self.name


class ModelSection(Section):
    name: Annotated[str, Field(min_length=1)]
    """For built-in tasks small-cnn, efficientnet-lite0, pratt-cnn, or torchvision/<model> (torchvision/resnet18)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the model's constructor."""
    weights: str | None = None
    """What training starts from: imagenet; needs:NAME (the run that `needs` calls so); a .safetensors file's key in the
    store, or its URI; null: from scratch."""


Task = Annotated[TaskSection, _short(TaskSection)]
Model = Annotated[ModelSection, _short(ModelSection)]


class DataSection(Section):
    dataset: Annotated[str, Field(min_length=1)]
    """Name of a prepared dataset in the store, or a full store URI of one elsewhere."""
    source: str | None = None
    """What `run` prepares the dataset from if it is missing: an image folder, its URI, digits or rendered-fundus."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each class's training samples to learn from; smaller shares are parts of larger ones."""
    cache: Size | None = None
    """How much of a node's disk shards may take, such as 50GiB; null: half of what is free."""

    @model_validator(mode="after")
    def _plain_name(self) -> DataSection:
        is_place = "://" in self.dataset or self.dataset.startswith("/")
        if not is_place and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}", self.dataset):
            raise Problems(
                [("dataset", f"{self.dataset!r} is no dataset name; use letters, digits, '.', '_', '=', '-'")]
            )
        return self


class OptimizerSection(Section):
    name: Literal["sgd", "adam", "adamw"]
    """sgd, adam, or adamw (Adam with decoupled weight decay)."""
    lr: Positive
    """Learning rate."""
    momentum: Fraction = 0.9
    """For sgd: share of the last update that is kept."""
    weight_decay: NotNegative = 0.0
    """Pull of the weights towards 0."""
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)] = (0.9, 0.999)
    """For adam and adamw: decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """For adam and adamw: added to the denominator."""

    @model_validator(mode="after")
    def _only_what_counts(self) -> OptimizerSection:
        idle = ("betas", "eps") if self.name == "sgd" else ("momentum",)
        _refuse_idle(self, idle, f"optimizer {self.name}")
        return self


class ScheduleSection(Section):
    name: Literal["constant", "cosine", "step"] = "constant"
    """constant; cosine (falls along half a cosine until the last step); step (falls at `step_epochs`)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""
    final_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For cosine: what the learning rate ends at, as a share of `lr`."""
    step_epochs: list[Count] = Field(default_factory=list)
    """For step: epochs after which the learning rate is multiplied by `step_factor`, in ascending order."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """For step: by how much."""

    @model_validator(mode="after")
    def _only_what_counts(self) -> ScheduleSection:
        if self.name == "step" and not self.step_epochs:
            raise Problems([("step_epochs", "is required for schedule step, such as [30, 60]")])
        if self.step_epochs != (ascending := sorted(set(self.step_epochs))):
            raise Problems([("step_epochs", f"must ascend, each epoch once; use {ascending}")])
        idle = {"cosine": ("step_epochs", "step_factor"), "step": ("final_factor",)}
        _refuse_idle(self, idle.get(self.name, ("final_factor", "step_epochs", "step_factor")), f"schedule {self.name}")
        return self


def _refuse_idle(section: Section, keys: tuple[str, ...], what: str) -> None:
    """A value that would be ignored is a mistake, unless it is the default anyway (as in a resolved spec)."""
    fields = type(section).model_fields
    idle = [key for key in keys if getattr(section, key) != fields[key].get_default(call_default_factory=True)]
    if idle:
        raise Problems([(key, f"has no effect with {what}; drop it") for key in idle])


Schedule = Annotated[ScheduleSection, _short(ScheduleSection)]


class PhaseSection(Section):
    epochs: Count | None = None
    """How long this phase lasts; null (only the last): until the end."""
    rates: dict[str, NotNegative]
    """Part of the model -> factor of its learning rate: head, backbone, or any prefix of its modules' names, the
    longest counts; parts that are not named are frozen."""


class TrainingSection(Section):
    epochs: Count
    """How often every training sample is seen."""
    global_batch: Count
    """Samples a step, over all nodes together; a multiple of `virtual_shards`."""
    virtual_shards: Count = 8
    """Equal parts of every global batch, a power of two; the largest useful number of ranks."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """All randomness of the run follows from it."""
    optimizer: OptimizerSection
    """How gradients become updates."""
    schedule: Schedule = ScheduleSection()
    """How the learning rate moves."""
    phases: list[PhaseSection] = Field(default_factory=list)
    """Which parts of the model learn when, and how fast; none: all of it, always."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of forward and backward; gradients are reduced in fp32."""
    exact: bool = True
    """The same bits whatever happened to the nodes; false is plain data parallel training."""
    clip_norm: Positive | None = None
    """Largest norm of the reduced gradient; null: no clipping."""
    strategy: Literal["replicated", "fsdp"] = "replicated"
    """replicated: every rank holds the whole state; fsdp: each holds a part of it (PyTorch's FSDP2)."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    channels_last: bool = False
    """Memory layout of images that GPUs are faster with."""
    on_mismatch: Literal["refuse", "continue"] = "refuse"
    """A node whose device cannot give the same bits is replaced, or the run goes on, marked inexact."""
    threads_per_rank: Count = 1
    """CPU threads of one rank; fixed, because sums depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: cuda if the node has a GPU."""

    @property
    def keeps_world(self) -> bool:
        """Whether the world size may never change: the bits of strategy fsdp depend on it, and the run is exact."""
        return self.exact and self.strategy == "fsdp"

    @model_validator(mode="after")
    def _shards(self) -> TrainingSection:
        found = []
        shards = self.virtual_shards
        if shards & (shards - 1):
            below = 1 << (shards.bit_length() - 1)
            found.append(("virtual_shards", f"{shards} is no power of two; use {below} or {2 * below}"))
        if self.global_batch % shards:
            nearest = max(shards, round(self.global_batch / shards) * shards)
            found.append(
                ("global_batch", f"{self.global_batch} is no multiple of virtual_shards ({shards}); use {nearest}")
            )
        found += _phase_problems(self.phases, self.epochs)
        if found:
            raise Problems(found)
        return self


def _phase_problems(phases: list[PhaseSection], epochs: int) -> list[tuple[str, str]]:
    found = [
        (f"phases.{number}.epochs", "is required: only the last phase goes on until the end")
        for number, phase in enumerate(phases[:-1])
        if phase.epochs is None
    ]
    found += [
        (f"phases.{number}.rates", "trains nothing; give a part a rate above 0, such as {head: 1}")
        for number, phase in enumerate(phases)
        if not any(phase.rates.values())
    ]
    if found or not phases:
        return found
    before, last = sum(phase.epochs or 0 for phase in phases[:-1]), phases[-1].epochs
    if before >= epochs:
        text = f"those before the last take {before} epochs, which leaves none of training.epochs ({epochs}) for it"
        return [("phases", f"{text}; use more than {before} epochs")]
    if last is not None and before + last != epochs:
        return [("phases", f"take {before + last} epochs, but training.epochs is {epochs}; drop the last one's epochs")]
    return []


class CheckpointSection(Section):
    every_steps: Count | None = None
    """A checkpoint every so many steps, besides the one after every epoch."""
    every_minutes: Positive | Literal["auto"] | None = "auto"
    """A checkpoint every so many minutes; auto: from its measured cost; null: none."""
    keep: Count = 3
    """How many of the newest checkpoints within epochs are kept; those at the end of an epoch always are."""


class NodesSection(Section):
    min: Count = 1
    """Training starts, and goes on, with at least so many nodes."""
    max: Count = 1
    """The controller keeps so many nodes."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs each node must have; 0: CPU nodes."""
    ranks_per_node: Count | None = None
    """Trainer processes a node; null: one for each GPU, or one."""
    market: Literal["spot", "on-demand"] = "spot"
    """Interruptible machines, or machines at the full price."""
    on_demand_after: Duration | None = None
    """For market spot: a node that cannot be had for so long is bought at the full price; null: never."""
    on_demand_for_deadline: bool = False
    """For market spot: buy as many nodes at the full price as limits.deadline needs, and no more."""

    @model_validator(mode="after")
    def _order(self) -> NodesSection:
        if self.min > self.max:
            raise Problems([("min", f"{self.min} is more than nodes.max ({self.max}); use at most {self.max}")])
        return self

    @model_validator(mode="after")
    def _only_what_counts(self) -> NodesSection:
        if self.market == "on-demand":
            _refuse_idle(self, ("on_demand_after", "on_demand_for_deadline"), "market on-demand")
        return self

    @property
    def ranks(self) -> int:
        """Trainer processes of one node."""
        return self.ranks_per_node or self.gpus_per_node or 1


class LimitsSection(Section):
    budget: Positive | None = None
    """US dollars that the run's machines may cost."""
    max_duration: Duration | None = None
    """How long after its creation the run is stopped."""
    deadline: Deadline | None = None
    """When the run is stopped at the latest, with a time zone."""
    stall: Duration = 1800.0
    """A node that makes no progress for so long ends itself."""
    idle: Duration = 1200.0
    """A node that has nothing to do for so long ends itself."""

    @property
    def deadline_at(self) -> float | None:
        """The deadline in seconds since the epoch."""
        return datetime.fromisoformat(self.deadline).timestamp() if self.deadline else None
