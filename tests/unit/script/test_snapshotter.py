"""The folder of a running script is snapshotted again and again, whatever gets in the way meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from starling.infra.snapshots.catalog import Commit
from starling.infra.store import Store
from starling.trainer.script import snapshotter as watching
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.snapshotter import Snapshotter
from tests.support.script_rounds import FailingStore, job

PATIENCE = 20.0


class Slow(FailingStore):
    """Uploads wait until they may go on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.uploads, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def upload(self, path: Path, key: str) -> str:
        self.uploads.set()
        assert self.go_on.wait(PATIENCE)
        return super().upload(path, key)


class Script:
    """A folder that is watched, and whoever writes to it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.keeper = Keeper(store, job(folder))
        self.keeper.job.folder.mkdir(parents=True)
        self.commits: list[Commit] = []
        self.writes: Callable[[], str | None] = lambda: None
        self.intact = True
        self.snapshotter = Snapshotter(
            self.keeper,
            1,
            writes=lambda: self.writes(),
            intact=lambda: self.intact,
            on_commit=self.commits.append,
            on_delay=lambda obstacle: None,
        )

    def save(self, content: str) -> None:
        (self.keeper.job.folder / "model.pt").write_text(content)

    def wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path) -> Slow:
    return Slow(tmp_path / "store")


@pytest.fixture
def script(tmp_path: Path, store: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(watching, "TICK", 0.01)
    script = Script(tmp_path, store)
    yield script
    store.go_on.set()
    script.snapshotter.halt()
    script.snapshotter.join()


def test_halting_does_not_wait_for_what_is_being_uploaded(script: Script, store: Slow) -> None:
    store.go_on.clear()
    script.save("one")
    assert store.uploads.wait(PATIENCE)
    script.snapshotter.halt()
    assert not script.commits
    store.go_on.set()
    script.snapshotter.join()
    script.save("two")
    assert not any(commit.snapshot.number > 1 for commit in script.commits)


def test_a_snapshot_that_took_much_computing_does_not_delay_the_next_look(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10_000))
    committing = script.keeper.commit
    busy = 0.0

    def dear(*arguments: object, **options: object) -> Commit:
        nonlocal busy
        busy += 3600.0 * (1 + next(hours))
        return committing(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(script.keeper, "commit", dear)
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, thread_time=lambda: busy)
    monkeypatch.setattr(watching, "time", clock)
    script.save("one")
    script.wait(lambda: len(script.commits) == 1)
    script.save("two")
    script.wait(lambda: len(script.commits) == 2)


def test_a_defect_of_ours_does_not_end_the_snapshots(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    failures = [UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")]

    def writes() -> None:
        if failures:
            raise failures.pop()

    script.writes = writes
    script.save("one")
    script.wait(lambda: len(script.commits) == 1)
    assert not failures
    assert "Traceback" in caplog.text


def test_nothing_is_snapshotted_once_a_process_has_failed(script: Script) -> None:
    script.intact = False
    script.save("half of it, and nobody has it open any more")
    script.wait(lambda: bool(script.commits) or not script.snapshotter._thread.is_alive())
    assert not script.commits
