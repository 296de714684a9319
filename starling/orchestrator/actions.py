"""What a decision can ask for. `acting.py` says in which order it is carried out; each may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from starling.infra.records import NodeIntent, Offer, RunState


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """Commit the intent of a new node."""

    intent: NodeIntent
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NextAttempt:
    """Commit other candidates for a node whose last attempt was refused, unless somebody has done so already."""

    intent: NodeIntent
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Launch a node as its committed intent says."""

    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorise:
    """Move a node's `authorised_until`."""

    node: str
    until: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Relieve:
    """Ask a node to leave by itself: another one takes over."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordPrice:
    """Write down what a running node costs from now on."""

    node: str
    at: float
    price_per_hour: float


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
    """Write down when the machine started, and what was bought."""

    node: str
    at: float
    instance_id: str
    offer: Offer


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordGone:
    """Write down that the machine is gone."""

    node: str
    at: float
    reason: str
    agent_said_so: bool
    """The agent has written its own last word."""
    taken: bool = False
    """The provider itself took the machine, whatever the agent has made of that."""


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
    Want
    | NextAttempt
    | Launch
    | Authorise
    | Relieve
    | RecordPrice
    | Terminate
    | TerminateStray
    | RecordLaunched
    | RecordGone
    | RequestStop
    | GiveVerdict
    | Forget
    | Finish
)
