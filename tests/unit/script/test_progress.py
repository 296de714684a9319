"""The agent hears that a script's node lives, also after a moment in which nothing could be written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from starling.infra.files import write_atomically
from starling.infra.records import Progress
from starling.trainer.script import progress as telling
from starling.trainer.script.progress import ScriptProgress


def read(folder: Path) -> Progress:
    return Progress.from_bytes((folder / "progress.json").read_bytes())


def wait_started(folder: Path) -> None:
    until = time.monotonic() + 20
    while not read(folder).started:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_disk_that_is_full_for_a_moment_does_not_silence_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "EVERY", 0.01)
    progress = ScriptProgress(tmp_path, round_number=0, rank=0, world_size=1, started=False)
    failures = [OSError(28, "No space left on device")]

    def full_for_a_moment(path: Path, data: bytes) -> None:
        if failures:
            raise failures.pop()
        write_atomically(path, data)

    monkeypatch.setattr(telling, "write_atomically", full_for_a_moment)
    try:
        while failures:
            time.sleep(0.01)
        progress.started = True
        wait_started(tmp_path)
    finally:
        progress.close()


def test_a_node_that_fills_its_folder_has_not_started_a_script(tmp_path: Path) -> None:
    ScriptProgress(tmp_path, round_number=0, rank=0, world_size=1, started=False).close()
    assert read(tmp_path).started is False
    ScriptProgress(tmp_path, round_number=1, rank=0, world_size=1, started=True).close()
    assert read(tmp_path).started is True


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
