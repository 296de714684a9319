"""What the supervisor tells its workers about the round they are started for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from starling.infra.supervision import ROUND


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundInfo:
    """One round, as seen from one node."""

    number: int
    nodes: tuple[str, ...]
    """Node ids in rank order."""
    node_rank: int
    fit: bool
    """Whether this node has the run's device fingerprint."""

    def write(self, work_dir: Path) -> None:
        (work_dir / ROUND).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, work_dir: Path) -> Self:
        values = json.loads((work_dir / ROUND).read_text())
        return cls(**{**values, "nodes": tuple(values["nodes"])})
