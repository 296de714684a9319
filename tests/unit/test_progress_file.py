"""progress.json, from which the agent tells whether anything moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.records import Progress
from starling.trainer import progress as module
from starling.trainer.progress import ProgressFile


def test_an_evaluation_shows_that_something_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setattr(module, "EVERY", 0.0)
    file = ProgressFile(path, total_steps=26, steps_per_epoch=13, round_=2, rank=0, world=3)
    file.alive()
    assert not path.exists(), "nothing is known yet"
    file.update(13, loss=0.5, checkpoint_step=None)
    stepped = Progress.from_bytes(path.read_bytes())
    file.alive()
    alive = Progress.from_bytes(path.read_bytes())
    assert (alive.step, alive.round, alive.loss) == (13, 2, 0.5)
    assert stepped.active_at is None
    assert alive.active_at is not None
    assert alive.active_at >= stepped.at


def test_it_is_not_written_more_often_than_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    file = ProgressFile(path, total_steps=26, steps_per_epoch=13, round_=2, rank=0, world=3)
    file.update(13, loss=0.5, checkpoint_step=None)
    file.alive()
    assert Progress.from_bytes(path.read_bytes()).active_at is None
