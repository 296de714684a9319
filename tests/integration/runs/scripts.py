"""Runs of scripts of somebody's own, through the commands: what they need besides `Commands`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from starling.infra.records import Failure
from starling.infra.snapshots.catalog import Catalog
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import open_store
from tests.integration.runs.commands import Commands, all_train

EXAMPLES = Path(__file__).parents[3] / "examples" / "scripts"


def example(starling: Commands, name: str) -> str:
    """Text of an example script in which what `--slow` says holds until `result` is asked for, so that there is time to
    interrupt on any machine."""
    braked = f"__import__('os').path.exists({str(starling.brake)!r})"
    text = (EXAMPLES / name).read_text()
    text, sleeps = re.subn(r"time\.sleep\(((args|self)\.\w+)\)", rf"time.sleep(\1 * {braked})", text)
    assert sleeps, f"{name} sleeps in no way that can be braked"
    return text


class ScriptRun:
    """One user with a script in a folder, and a run `r` of it; the first word of `run` names the script."""

    def __init__(self, starling: Commands, text: str, run: str, *, nodes: int = 1, **command: Any) -> None:
        self.starling = starling
        code = starling.folder / "scripts"
        code.mkdir()
        (code / run.split()[0]).write_text(text)
        spec = {
            "name": "script",
            "code": "scripts",
            "command": {"run": run, "folder": "out", "every": 1, "settle": 0.5, **command},
            "nodes": {"min": 1, "max": nodes},
        }
        starling.spec.write_text(yaml.safe_dump(spec))

    @property
    def store(self) -> Path:
        return self.starling.folder / "home" / "store"

    @property
    def catalog(self) -> Catalog:
        return Catalog(open_store(str(self.store)), "r")

    def wait_snapshot(self, number: int, *, world_size: int = 1, least_round: int = 0) -> dict[str, Any]:
        return self.starling.wait(
            f"snapshot {number} with world size {world_size}",
            lambda s: bool(
                s["snapshot"]
                and s["snapshot"]["number"] >= number
                and all_train(s, world_size)
                and s["round"] >= least_round
            ),
        )

    def snapshots(self) -> list[Snapshot]:
        return [self.catalog.read(number) for number in self.catalog.numbers()]

    def failures(self) -> list[Failure]:
        folder = self.store / "runs" / "r" / "failures" / "0"
        return [Failure.from_bytes(path.read_bytes()) for path in sorted(folder.glob("*.json"))]

    def saved(self) -> Path:
        """The newest snapshot's content, as files."""
        folder = self.starling.folder / "saved"
        if not folder.exists():
            done = self.starling.type("fetch", "r", str(folder))
            assert done.returncode == 0, done.stderr
        return folder

    def starts(self) -> list[dict[str, Any]]:
        """What the script itself wrote down whenever it started."""
        lines = (self.saved() / "starts.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
