"""IMDS tells times as UTC timestamps in whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def to_timestamp(at: float) -> str:
    """Epoch seconds as IMDS writes them, rounded down."""
    return datetime.fromtimestamp(int(at), UTC).strftime(_FORMAT)


def from_timestamp(text: str) -> float:
    """Epoch seconds of an IMDS timestamp. Raises ValueError."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC).timestamp()
