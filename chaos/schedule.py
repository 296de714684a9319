"""What goes wrong, when, and to whom: a schedule is a function of its seed, and of nothing else."""

from __future__ import annotations

import random
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from starling.infra.errors import UsageError

T = TypeVar("T")

NODES = 3
"""Nodes of a chaos run, as long as no fault changes that."""
NOTICE_SECONDS = (0.5, 30.0)
FREEZE_SECONDS = (1.0, 25.0)
TROUBLE_SECONDS = (1.0, 20.0)


class Kind(StrEnum):
    """What happens."""

    NOTICE = "notice"
    """Nodes are announced to be taken in `seconds`, and are taken then."""
    KILL_NODE = "kill-node"
    """Every process of the nodes gets SIGKILL at once."""
    KILL_AGENT = "kill-agent"
    """The nodes' agents alone get SIGKILL; their machines then end."""
    KILL_SUPERVISOR = "kill-supervisor"
    KILL_WORKER = "kill-worker"
    """One training process of each node gets SIGKILL."""
    KILL_CONTROLLER = "kill-controller"
    """SIGKILL; a user types `starling resume` after `seconds`."""
    FREEZE_WORKER = "freeze-worker"
    """SIGSTOP, and SIGCONT after `seconds`."""
    FREEZE_NODE = "freeze-node"
    """The same for every process of the nodes: machines that hang."""
    STOP = "stop"
    """`starling stop`, and once it has stopped `starling resume` with `nodes_max` nodes."""
    STORE = "store"
    """The store makes `trouble` for `seconds`."""


class Moment(StrEnum):
    """What is waited for before a fault strikes, after the steps it waits for."""

    ANY = "at once"
    TRAINING = "while training"
    """Some node trains."""
    FULL = "while all train"
    """All nodes that the run asks for train."""
    FORMING = "while a group forms"
    UPLOADING = "while a checkpoint uploads"
    """At a step that is saved, or while parts of a checkpoint that is not committed lie in the store."""
    JOINING = "while a node joins"
    """A node is up, or waits to be let in, and does not train yet."""


class Who(StrEnum):
    RANK0 = "rank 0"
    OTHER = "a node that is not rank 0"
    TWO = "two nodes"
    ALL = "all nodes"


class Trouble(StrEnum):
    """What a store does to a part of what is asked of it."""

    ERRORS = "errors"
    """Answers 500."""
    THROTTLING = "throttling"
    """Answers 503 SlowDown."""
    TIMEOUTS = "timeouts"
    """Does not answer for 2 to 10 s."""
    SLOW = "slow"
    """Answers a second or two late."""
    LOST_ANSWERS = "lost-answers"
    """Does what is asked, and breaks the connection before it says so."""
    TORN_UPLOADS = "torn-uploads"
    """Breaks the connection in mid-body of a write."""
    TRUNCATED_DOWNLOADS = "truncated-downloads"
    """Breaks the connection in mid-body of a read."""
    GONE = "gone"
    """Refuses everything."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Plain):
    """One thing that goes wrong."""

    kind: Kind
    after_steps: int = Field(ge=0, default=0)
    """Steps that training makes after the fault before this one."""
    moment: Moment = Moment.TRAINING
    delay: float = Field(ge=0, default=0.0)
    """Seconds after all that."""
    who: Who = Who.OTHER
    seconds: float = Field(ge=0, default=0.0)
    trouble: Trouble | None = None
    share: float = Field(gt=0, le=1, default=1.0)
    """Of the operations that are hit by trouble."""
    nodes_max: int = Field(ge=1, le=8, default=NODES)

    def __str__(self) -> str:
        after = f"after {self.after_steps} steps, " if self.after_steps else ""
        delay = f" and {self.delay:.1f} s" if self.delay else ""
        return f"{after}{self.moment.value}{delay}: {self.what}"

    @property
    def what(self) -> str:
        """The fault itself, without its moment."""
        match self.kind:
            case Kind.STORE:
                return f"store {self.trouble}, {self.share:.0%} of operations, for {self.seconds:.1f} s"
            case Kind.STOP:
                return f"stop, then resume with {self.nodes_max} nodes"
            case Kind.KILL_CONTROLLER:
                return f"kill-controller, resume after {self.seconds:.1f} s"
            case Kind.NOTICE | Kind.FREEZE_NODE | Kind.FREEZE_WORKER:
                return f"{self.kind} of {self.seconds:.1f} s to {self.who.value}"
        return f"{self.kind} of {self.who.value}"


class Schedule(_Plain):
    """All of it, and what it happens to."""

    seed: int
    store: str = Field(pattern="^(folder|s3)$")
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {len(self.faults)} faults, store: {self.store}"]
        return "\n".join([*lines, *(f"{number:3}. {fault}" for number, fault in enumerate(self.faults, 1))])

    def write(self, path: Path) -> None:
        """As JSON, which `read` takes and people may edit."""
        path.write_text(self.model_dump_json(indent=1, exclude_defaults=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UsageError."""
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise UsageError(f"{path} is no schedule: {error}") from error


def schedule(seed: int, events: int, store: str) -> Schedule:
    """The schedule of a seed: `events` faults."""
    chance = random.Random(f"{seed} {events} {store}")
    faults: list[Fault] = []
    for _ in range(events):
        faults.append(_fault(chance, faults[-1] if faults else None))
    return Schedule(seed=seed, store=store, faults=tuple(faults))


_KINDS = {
    Kind.NOTICE: 20,
    Kind.KILL_NODE: 18,
    Kind.STORE: 22,
    Kind.KILL_WORKER: 7,
    Kind.KILL_CONTROLLER: 8,
    Kind.KILL_AGENT: 6,
    Kind.KILL_SUPERVISOR: 6,
    Kind.FREEZE_NODE: 5,
    Kind.FREEZE_WORKER: 4,
    Kind.STOP: 4,
}
_CALM = {Moment.TRAINING: 45, Moment.FULL: 25, Moment.UPLOADING: 18, Moment.ANY: 12}
_AFTERMATH = {Moment.FORMING: 30, Moment.JOINING: 30, Moment.ANY: 20, Moment.TRAINING: 10, Moment.FULL: 10}
"""After a fault that takes nodes away: more often than not, the next one hits the recovery."""
_WHO = {Who.RANK0: 35, Who.OTHER: 35, Who.TWO: 18, Who.ALL: 12}
_HARMLESS = (Kind.STORE, Kind.KILL_CONTROLLER, Kind.FREEZE_WORKER)


def _fault(chance: random.Random, before: Fault | None) -> Fault:
    kind = _draw(chance, _KINDS)
    moment = _draw(chance, _CALM if before is None or before.kind in _HARMLESS else _AFTERMATH)
    calm = moment in (Moment.TRAINING, Moment.FULL)
    return Fault(
        kind=kind,
        moment=moment,
        after_steps=chance.randint(3, 30) if calm or before is None else 0,
        delay=round(chance.uniform(0, 1.5 if calm else 0.4), 2),
        who=_draw(chance, _WHO),
        seconds=_seconds(chance, kind),
        trouble=chance.choice(list(Trouble)) if kind is Kind.STORE else None,
        share=round(chance.choice([1.0, chance.uniform(0.1, 0.9)]), 2) if kind is Kind.STORE else 1.0,
        nodes_max=chance.randint(1, 4) if kind is Kind.STOP else NODES,
    )


def _seconds(chance: random.Random, kind: Kind) -> float:
    match kind:
        case Kind.NOTICE:
            return round(chance.choice([chance.uniform(NOTICE_SECONDS[0], 4.0), chance.uniform(*NOTICE_SECONDS)]), 2)
        case Kind.FREEZE_NODE | Kind.FREEZE_WORKER:
            return round(chance.uniform(*FREEZE_SECONDS), 2)
        case Kind.STORE:
            return round(chance.uniform(*TROUBLE_SECONDS), 2)
        case Kind.KILL_CONTROLLER:
            return round(chance.uniform(0.0, 8.0), 2)
    return 0.0


def _draw(chance: random.Random, weights: dict[T, int]) -> T:
    return chance.choices(list(weights), list(weights.values()))[0]
