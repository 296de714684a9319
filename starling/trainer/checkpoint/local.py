"""A node's own copies of the state, so that survivors of an interruption reload from their own disk."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from starling.trainer.checkpoint.files import DamagedFile, read_tensors, write_tensors
from starling.trainer.memory import all_cores
from starling.trainer.state import TrainingState

log = logging.getLogger(__name__)

KEPT = 2
"""Newest copies that stay on disk; one would be lost by a crash while its successor is written."""


class LocalCheckpoints:
    """Whole states in a folder; a copy appears by renaming its finished folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: TrainingState, state_sha256: str) -> None:
        """Write one copy and drop those that are older than the newest `KEPT`."""
        final = self._folder / f"{state.step:010d}"
        if state.step in self._written and final.exists():
            return
        for unfinished in self._folder.glob(".*"):  # of a writer that was killed; a node has one at a time
            shutil.rmtree(unfinished)
        aside = self._folder / f".{state.step:010d}"
        aside.mkdir()
        write_tensors(state.tensors, aside / "state.safetensors")
        (aside / "meta.json").write_text(json.dumps({**state.meta(), "state_sha256": state_sha256}))
        shutil.rmtree(final, ignore_errors=True)  # of an earlier round, which may be damaged
        aside.rename(final)
        self._written.add(state.step)
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self._folder / f"{old:010d}")

    def steps(self) -> list[int]:
        """Steps of all finished copies, oldest first."""
        return sorted(int(entry.name) for entry in self._folder.iterdir() if entry.name.isdigit())

    def load_newest(self) -> tuple[TrainingState, str] | None:
        """The newest copy whose bytes are what was saved, with its state SHA-256; damaged ones are passed over."""
        for step in reversed(self.steps()):
            try:
                return self._load(step)
            except (DamagedFile, OSError, ValueError) as error:
                log.warning("local copy of step %d is damaged, trying an older one: %s", step, error)
        return None

    def _load(self, step: int) -> tuple[TrainingState, str]:
        folder = self._folder / f"{step:010d}"
        meta = json.loads((folder / "meta.json").read_text())
        expected = meta.pop("state_sha256")
        state = TrainingState(tensors=read_tensors(folder / "state.safetensors"), **meta)
        if state.hashes(all_cores()).state_sha256 != expected:
            raise DamagedFile("the checksum does not match")
        return state, expected
