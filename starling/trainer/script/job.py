"""What a node is told to run: the parts of the resolved spec that a script's supervisor needs, as plain values."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptJob:
    """One node's part in one run of a script, as the agent wrote it into job.json. Durations in seconds."""

    run: str
    incarnation: int
    node: str
    address: str
    store_uri: str
    work_dir: Path
    directory: Path
    """The script's working directory: the unpacked code folder."""
    words: tuple[str, ...]
    """What is run."""
    folder: Path
    """What the script saves to, and resumes from."""
    every: float
    grace: float
    keep: int
    settle: float
    logs: tuple[str, ...]
    min_nodes: int
    max_nodes: int
    ranks_per_node: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read job.json."""
        job = json.loads(path.read_text())
        spec, work_dir = job["spec"], Path(job["work_dir"])
        command, nodes = spec["command"], spec["nodes"]
        directory = Path(job["code_dir"]) if job["code_dir"] else work_dir / "script"
        return cls(
            run=job["run"],
            incarnation=job["incarnation"],
            node=job["node"],
            address=job["address"],
            store_uri=job["store_uri"],
            work_dir=work_dir,
            directory=directory,
            words=tuple(command["run"]),
            folder=directory / command["folder"],
            every=command["every"],
            grace=command["grace"],
            keep=command["keep"],
            settle=command["settle"],
            logs=tuple(command["logs"]),
            min_nodes=nodes["min"],
            max_nodes=nodes["max"],
            ranks_per_node=nodes["ranks_per_node"] or nodes["gpus_per_node"] or 1,
        )

    @property
    def is_python(self) -> bool:
        """Whether this interpreter runs the script: a `.py` file or `-m module`, as torchrun does it."""
        return self.words[0] == "-m" or self.words[0].endswith(".py")

    @property
    def command(self) -> tuple[str, ...]:
        """Executable and arguments."""
        return (sys.executable, "-u", *self.words) if self.is_python else self.words
