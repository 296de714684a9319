"""The files in a run's work folder through which agent and supervisor talk."""

from __future__ import annotations

import logging
from pathlib import Path

from starling.infra.errors import ObjectCorrupt
from starling.infra.files import write_json
from starling.infra.records import Progress
from starling.infra.supervision import JOB, LEAVE, METRICS, PROGRESS, ROUND, STOP, UNFIT, control_file, control_folder

_log = logging.getLogger(__name__)


class WorkFolder:
    """The folder of one run on one node, `<node folder>/work/<run>`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        control_folder(self.path).mkdir(parents=True, exist_ok=True)

    @property
    def job_file(self) -> Path:
        return self.path / JOB

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS

    def ask_leave(self, reason: str, deadline: float | None) -> None:
        """Tell the supervisor that this node must go, by `deadline` (epoch seconds) if that is known."""
        write_json(control_file(self.path, LEAVE), {"reason": reason, "deadline": deadline})

    def ask_stop(self, reason: str) -> None:
        """Tell the supervisor that the whole run must stop."""
        write_json(control_file(self.path, STOP), {"reason": reason})

    def progress(self) -> Progress | None:
        """How far the node's local rank 0 says it is; None if it has not said anything readable."""
        try:
            return Progress.from_bytes((self.path / PROGRESS).read_bytes())
        except FileNotFoundError:
            return None
        except ObjectCorrupt as error:
            _log.warning("progress.json cannot be read: %s", error)
            return None

    def round_at(self) -> float | None:
        """When the node's newest round formed, by this machine's clock; None if it has been in none."""
        try:
            return (self.path / ROUND).stat().st_mtime
        except FileNotFoundError:
            return None

    def unfit(self) -> str:
        """Why the supervisor found this node unfit: the last line it wrote about that."""
        try:
            lines = (self.path / UNFIT).read_text().strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1] if lines else "the supervisor gave no reason"
