"""Where everything local lives."""

from __future__ import annotations

import os
from pathlib import Path

from starling.infra.processes import HOME


def starling_home() -> Path:
    """$STARLING_HOME, or ~/.starling; absolute, not necessarily there yet."""
    return Path(os.environ.get(HOME) or "~/.starling").expanduser().resolve()


def node_folder(home: Path, node: str) -> Path:
    """The folder of a local node."""
    return home / "nodes" / node
