"""What a provider does: offer, launch, list, terminate; nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starling.infra.records import Market, NodeIntent, Notice, Offer


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine as the provider sees it."""

    node: str
    instance_id: str
    alive: bool
    launched_at: float | None
    ended_at: float | None = None
    ended_reason: str | None = None
    taken: bool = False
    """It ended because the provider took it, for want of machines or by announcement: no fault of what ran on it."""
    address: str | None = None
    instance_type: str | None = None
    zone: str | None = None
    market: Market | None = None
    """With type and zone: which of the candidates this is; None where the provider does not tell."""
    notice: Notice | None = None
    """An interruption that the provider itself has announced to us, besides what the node's agent may say."""
    pids: tuple[int, ...] = field(default=())
    """Local nodes only: every process of the node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """What a launch bought."""

    instance_id: str
    offer: Offer
    """The candidate that was taken."""
    at: float
    """When the machine was started; its bill begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often a provider likes to be asked, and how fast its word comes true; seconds."""

    look: float = 1.0
    """Between two passes of the controller while nothing happens."""
    list_busy: float = 0.0
    """Between two `list` calls while machines come or go ..."""
    list_calm: float = 0.0
    """... and while all is well."""
    settle: float = 5.0
    """How long a machine that was launched may still be missing in `list`."""
    boot: float = 600.0
    """How long a machine may take from its launch to its agent's first word."""
    offers: float = 60.0
    """How long its offers are taken for current."""
    parallel_launches: int = 1
    """How many launches to have under way at once."""


class Provider(Protocol):
    """Synchronous and idempotent. Raises ProviderError and its children, nothing vendor-specific.
    `launch` may be called from several threads at once."""

    name: str
    pace: Pace

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        """What can be bought now for one node, best first."""
        ...

    def launch(self, intent: NodeIntent, store_uri: str) -> Launched:
        """Start the node of a committed intent, as one of its candidates. The same (node, attempt) again is a no-op
        that returns the same, also from another process and also after the node ended (a node never starts twice).
        Returns as soon as the launch is under way.
        Raises NoCapacity if this attempt has failed for certain: another one may be made, with other candidates. After
        any other ProviderError only the same attempt may be repeated."""
        ...

    def list(self, run: str | None = None) -> list[Machine]:
        """All machines we started (of one run), ended ones included for as long as the provider knows them."""
        ...

    def terminate(self, nodes: Sequence[str]) -> None:
        """End these nodes and everything on them; fine if they are gone. Legal only once their terminate intents are
        committed."""
        ...

    def interrupt(self, node: str, notice: float | None) -> None:
        """Rehearse a spot interruption: post a notice of so many seconds, then take the machine; None takes it at once.
        Raises ProviderError if this provider cannot."""
        ...

    def forget(self, node: str) -> None:
        """Remove what is left of an ended node (folders, records). No-op while it is alive."""
        ...

    def close(self, run: str) -> None:
        """Remove what was made for a run as a whole (launch templates), once all its nodes have ended. Idempotent."""
        ...
