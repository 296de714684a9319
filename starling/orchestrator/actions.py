"""What a decision can ask for. Each is carried out by `controller.py`, in the order given; each may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from starling.infra.records import NodeIntent, RunState


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Commit the intent (if it is new), then launch."""

    intent: NodeIntent
    new: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorise:
    """Move a node's `authorised_until`."""

    node: str
    until: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Terminate:
    """Commit the terminate intent, then release the machine."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminateStray:
    """Like Terminate, for a machine without an intent: commit one that says terminate first."""

    intent: NodeIntent
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordLaunched:
    """Write down when the machine started."""

    node: str
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordGone:
    """Write down that the machine is gone."""

    node: str
    at: float
    reason: str
    agent_said_so: bool
    """The agent has written its own last word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestStop:
    """Ask the nodes of this incarnation to checkpoint and end."""

    incarnation: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveVerdict:
    """Say how this incarnation ended, unless somebody has said so already."""

    incarnation: int
    state: RunState
    reason: str
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Remove what is left of an ended machine. Only after the verdict: the leftovers keep launches idempotent."""

    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """Nothing is left to do for this incarnation."""


Action = (
    Launch
    | Authorise
    | Terminate
    | TerminateStray
    | RecordLaunched
    | RecordGone
    | RequestStop
    | GiveVerdict
    | Forget
    | Finish
)
