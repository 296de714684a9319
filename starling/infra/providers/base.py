"""What a provider does: offer, launch, list, terminate; nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from starling.infra.records import NodeIntent, Offer


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine as the provider sees it."""

    node: str
    instance_id: str
    alive: bool
    launched_at: float | None
    ended_at: float | None = None
    ended_reason: str | None = None
    address: str | None = None
    pids: tuple[int, ...] = field(default=())
    """Local nodes only: every process of the node."""


class Provider(Protocol):
    """Synchronous and idempotent. Raises ProviderError and its children, nothing vendor-specific."""

    name: str

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        """What can be bought now for one node, best first."""
        ...

    def launch(self, intent: NodeIntent, store_uri: str) -> None:
        """Start the node of a committed intent. Launching the same node again is a no-op, also from another process
        and also after it ended (a node never starts twice). Returns as soon as the launch is under way.
        Raises NoCapacity, ProviderError."""
        ...

    def list(self, run: str | None = None) -> list[Machine]:
        """All machines we started (of one run), ended ones included for as long as the provider knows them."""
        ...

    def terminate(self, node: str) -> None:
        """End the node and everything on it; fine if it is gone. Legal only once its terminate intent is committed."""
        ...

    def interrupt(self, node: str, notice: float | None) -> None:
        """Rehearse a spot interruption: post a notice of so many seconds, then take the machine; None takes it at once.
        Raises ProviderError if this provider cannot."""
        ...

    def forget(self, node: str) -> None:
        """Remove what is left of an ended node (folders, records). No-op while it is alive."""
        ...
