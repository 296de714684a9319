"""The `command` section of a spec: a script of the user's, which saves to and resumes from a folder of its own."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from starling.orchestrator.sections import Count, Duration, Problems, Section

PLAIN_LOGS = ("*.log", "*.jsonl", "*.csv", "*.tfevents.*")
SHORTEST_EVERY = 1.0


def parse_words(value: object) -> object:
    """Split a command line as a shell would, without running one."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be split into words ({error}); write a list of words") from error


Words = Annotated[list[str], BeforeValidator(parse_words, json_schema_input_type=str | list[str]), Field(min_length=1)]


class CommandSection(Section):
    run: Words
    """What is run on every node, for each rank: `script.py ARGUMENTS`, `-m module ARGUMENTS`, or any executable."""
    folder: Annotated[str, Field(min_length=1)]
    """The folder it saves to and resumes from, relative to the code folder; all of it is kept."""
    every: Duration = 600.0
    """The folder is snapshotted so often, if it has changed."""
    grace: Duration = 30.0
    """How long the script may take to save and end after SIGTERM."""
    keep: Count = 3
    """How many of the newest snapshots are kept."""
    settle: Duration = 2.0
    """A break in saving may be so long; nothing in the folder must have changed for longer when it is snapshotted."""
    logs: list[str] = Field(default=list(PLAIN_LOGS))
    """Patterns of files that are written to all the time: a snapshot does not wait for them."""

    @model_validator(mode="after")
    def _sensible(self) -> CommandSection:
        found = [*self._run_problems(), *self._folder_problems()]
        if self.every < SHORTEST_EVERY:
            found.append(("every", f"{self.every:g} s is too often; use at least {SHORTEST_EVERY:g} s"))
        if any(not pattern for pattern in self.logs):
            found.append(("logs", "holds an empty pattern; drop it"))
        if found:
            raise Problems(found)
        return self

    @property
    def script(self) -> str | None:
        """The script's path in the code folder; None for a module or an executable."""
        return self.run[0] if self.run[0].endswith(".py") else None

    def _run_problems(self) -> list[tuple[str, str]]:
        first = self.run[0]
        if first == "-m" and len(self.run) == 1:
            return [("run", "-m needs the name of a module: -m package.module")]
        if first == "torchrun" or self.run[:3] == ["python", "-m", "torch.distributed.run"]:
            return [("run", "drop torchrun and its options: name the script; nodes.ranks_per_node says how many of it")]
        if first in ("python", "python3") and len(self.run) > 1 and self.run[1].endswith(".py"):
            return [("run", f"drop {first}: {shlex.join(self.run[1:])} is run with the node's Python")]
        if first.startswith("-") and first != "-m":
            return [
                ("run", f"{first!r} is no command; write script.py ARGUMENTS, -m module ARGUMENTS or an executable")
            ]
        return []

    def _folder_problems(self) -> list[tuple[str, str]]:
        path = PurePosixPath(self.folder)
        if path.is_absolute() or ".." in path.parts:
            return [("folder", f"{self.folder!r} leads out of the code folder; use a path inside it, such as out")]
        if path == PurePosixPath("."):
            return [
                ("folder", "the code folder itself cannot be it; let the script save to a folder inside, such as out")
            ]
        return []
