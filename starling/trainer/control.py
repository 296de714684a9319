"""What the node's agent and supervisor ask of the training processes: one file each, looked for at step boundaries.

Never a signal: TorchElastic's SIGTERM kills after 30 s, in the middle of a step if need be. A file waits for the
boundary, all ranks vote on it, and only then does anybody leave.
"""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

from starling.infra import supervision


class Request(IntEnum):
    """What can be asked, in the order in which it is granted."""

    STOP = 0
    """The run ends for now: all nodes save and go."""
    LEAVE = 1
    """This node must go: all save, the others go on without it."""
    JOIN = 2
    """Newcomers wait: all save locally and form a new round with them."""


_NAMES = {
    Request.STOP: supervision.STOP,
    Request.LEAVE: supervision.LEAVE,
    Request.JOIN: supervision.JOIN,
}


class Control:
    """The requests of one node for one run."""

    def __init__(self, work_dir: Path) -> None:
        self._folder = supervision.control_folder(work_dir)
        self._folder.mkdir(parents=True, exist_ok=True)

    def ask(self, request: Request, **details: Any) -> None:
        """Make a request; asking twice changes nothing."""
        aside = self._folder / f".{_NAMES[request]}"
        aside.write_text(json.dumps(details))
        aside.replace(self._path(request))

    def is_asked(self, request: Request) -> bool:
        return self._path(request).exists()

    def deadline(self, request: Request) -> float | None:
        """When (epoch seconds) a request must have been granted, if it was asked and says so."""
        try:
            asked = json.loads(self._path(request).read_text())
        except FileNotFoundError:
            return None
        deadline = asked.get("deadline")
        return None if deadline is None else float(deadline)

    def withdraw(self, request: Request) -> None:
        self._path(request).unlink(missing_ok=True)

    def _path(self, request: Request) -> Path:
        return self._folder / _NAMES[request]
