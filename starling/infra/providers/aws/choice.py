"""What a spec says about machines of AWS, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsChoice:
    """The spec's `provider` section for aws, key by key; hashable, so that answers can be kept by it."""

    region: str = "us-east-1"
    zones: tuple[str, ...] | None = None
    """None: all of the region."""
    same_zone: bool = True
    instance_types: tuple[str, ...] | None = None
    """None: everything that has the number of GPUs that is asked for."""
    gpu_memory: float | None = None
    """GiB each GPU must have at least."""
    max_price: float | None = None
    """US dollars an hour that one node may cost at most."""
    image: str | None = None
    """An AMI's id, or the SSM parameter that holds one; None: the Deep Learning AMI."""
    disk: int = 100
    """GiB of each node's volume."""
    stack: str = "starling"

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> AwsChoice:
        """From a section as the resolved spec holds it; what is missing has the default."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: _hashable(value) for key, value in section.items() if key in known})


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
