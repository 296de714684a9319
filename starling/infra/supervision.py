"""What a node's agent and the supervisor that it starts agree on: exit codes, and files in the run's work folder.

The agent writes `job.json`, `control/leave` and `control/stop`; the supervisor and what it starts write the rest.
"""

from __future__ import annotations

from pathlib import Path

TRAINER_MODULE = "starling.trainer.supervisor"
"""Supervises our own training loop (`task:` in the spec)."""
SCRIPT_MODULE = "starling.trainer.script"
"""Supervises a script of the user's (`command:` in the spec)."""

JOIN_INTERVALS = 2
LEAST_JOIN_SECONDS = 60.0

EXIT_VERDICT = 0
"""The run has a verdict."""
EXIT_LEFT = 10
"""This node was asked to leave, and what was to be saved is saved."""
EXIT_UNFIT = 11
"""This node cannot serve the run; `unfit.txt` says why. Any other exit code is a crash."""

JOB = "job.json"
PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
ROUND = "round.json"
"""The round that this node was last formed in; written when its workers are about to start."""
UNFIT = "unfit.txt"
LEAVE = "leave"
"""This node must go."""
STOP = "stop"
"""The whole run must stop."""
JOIN = "join"
"""Newcomers are to be let in; written by the supervisor only."""


def join_seconds(every: float) -> float:
    """How long newcomers to a script wait for it to save something, at most; `every`: seconds between snapshots."""
    return max(JOIN_INTERVALS * every, LEAST_JOIN_SECONDS)


def control_folder(work_dir: Path) -> Path:
    return work_dir / "control"


def control_file(work_dir: Path, request: str) -> Path:
    """Where LEAVE, STOP or JOIN is asked for; the file holds a JSON object with the details."""
    return control_folder(work_dir) / request
