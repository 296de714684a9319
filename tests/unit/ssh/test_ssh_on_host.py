"""What runs on a host: our package's arrival, and what is cleared away there."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tarfile
import time
from pathlib import Path

import pytest

from starling.infra.providers.ssh.calls import package
from starling.infra.providers.ssh.on_host import arrival, leftovers

OLD = (1.0, 1.0)
THEN = 1000.0


def test_the_package_is_unpacked_by_a_python_without_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.11.2 of Debian 12."""
    extract = tarfile.TarFile.extractall

    def without_filter(tar: tarfile.TarFile, path: Path) -> None:
        extract(tar, path)

    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", without_filter)
    ours = package()
    arrival.unpack(ours.archive, tmp_path / ours.sha256)
    assert (tmp_path / ours.sha256 / "starling" / "__init__.py").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [ours.sha256]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two hosts share it; everything in it was last used long ago."""
    for name in ("packages/a", "packages/b", "packages/.c.77", "environments/e", "environments/f"):
        old(tmp_path / name)
    for host in ("here", "there"):
        (tmp_path / "hosts" / host / "nodes").mkdir(parents=True)
    return tmp_path


def old(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "file").touch()
    os.utime(folder, OLD)


def left(root: Path) -> list[str]:
    leftovers.clear(root / "hosts" / "here", THEN)
    return sorted(
        path.relative_to(root).as_posix() for kind in ("packages", "environments") for path in (root / kind).iterdir()
    )


def test_what_nobody_uses_goes(root: Path) -> None:
    assert arrival.touched(root / "packages" / "b"), "every errand does this"
    assert not arrival.touched(root / "packages" / "nowhere")
    assert left(root) == ["packages/b"]


def test_what_a_living_node_of_any_host_uses_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = root / "hosts" / "there"
    monkeypatch.setattr(sys, "executable", str(root / "environments" / "e" / "venv" / "bin" / "python"))
    leftovers.note_use(there, "r.0.0", "a")
    node = there / "nodes" / "r.0.0"
    node.mkdir()
    assert left(root) == ["environments/e", "packages/a"]
    (node / "ended.json").write_text(json.dumps({"at": 1.0, "reason": "done"}))
    assert left(root) == []


def test_an_environment_that_is_being_made_stays(root: Path) -> None:
    with (root / "environments" / "f" / "lock").open("w") as lock:
        os.utime(root / "environments" / "f", OLD)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert left(root) == ["environments/f"]
    assert left(root) == []


def test_whoever_is_second_at_clearing_does_not_mind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        rename(path, path.with_name("elsewhere")).joinpath("file").unlink()
        path.with_name("elsewhere").rmdir()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    assert left(root) == []


def test_refusals_go_with_time(root: Path) -> None:
    here = root / "hosts" / "here"
    (here / "refused" / "store").mkdir(parents=True)
    for name, times in (("r.0.0.0", OLD), ("r.1.0.0", (time.time(), time.time()))):
        (here / "refused" / "store" / name).touch()
        os.utime(here / "refused" / "store" / name, times)
    leftovers.clear(here, THEN)
    assert [path.name for path in (here / "refused" / "store").iterdir()] == ["r.1.0.0"]
