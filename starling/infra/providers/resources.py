"""Anything at a provider that costs money, or room, and carries our mark."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ResourceKind(StrEnum):
    INSTANCE = "instance"
    VOLUME = "volume"
    """One that no machine uses; others go with their machine."""
    FLEET = "fleet"
    LAUNCH_TEMPLATE = "launch-template"
    UPLOAD = "upload"
    """Parts of an object that was never completed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One of them, as the provider shows it."""

    kind: ResourceKind
    id: str
    region: str
    store: str | None
    """URI of the store that its run lies in; None: it does not say."""
    run: str | None
    node: str | None = None
    created_at: float | None = None
    """Seconds since the epoch; None: unknown."""
    detail: str = ""
    """For people: its type and zone, or the key of an upload."""
