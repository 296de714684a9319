from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from starling.infra.errors import StoreUnavailable
from starling.infra.store import Store
from starling.trainer.data.prepare import prepare
from starling.trainer.data.shard_folder import PREFIX, shard_folder

HOUR = 3600


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def grow_old(folder: Path) -> None:
    then = folder.stat().st_mtime - HOUR
    os.utime(folder, (then, then))


def test_the_folder_is_there_and_then_it_is_not(place: Path) -> None:
    with shard_folder() as folder:
        assert (folder.parent, list(folder.iterdir())) == (place, [])
        (folder / "train-00000.tar").write_bytes(b"shard")
    assert not list(place.iterdir())


def test_what_a_killed_preparation_left_is_removed_by_the_next(place: Path) -> None:
    code = (
        "import os, signal, tempfile\n"
        "from starling.trainer.data.shard_folder import shard_folder\n"
        f"tempfile.tempdir = {str(place)!r}\n"
        "with shard_folder() as folder:\n"
        "    (folder / 'train-00000.tar').write_bytes(bytes(1000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = place.iterdir()
    with shard_folder():
        assert left.exists(), "whoever has just made it may not have locked it yet"
    grow_old(left)
    with shard_folder() as mine:
        assert list(place.iterdir()) == [mine]


def test_what_another_preparation_uses_and_what_others_left_stays(place: Path) -> None:
    other, link = place / "starling-else", place / f"{PREFIX}link"
    other.mkdir()
    link.symlink_to(other)
    grow_old(other)
    with shard_folder() as used:
        grow_old(used)
        with shard_folder() as mine:
            assert sorted(place.iterdir()) == sorted([other, link, used, mine])


@pytest.mark.parametrize("full", ["mkdtemp", "gettempdir"])
def test_no_room_for_a_temporary_folder_is_said_in_words(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch, place: Path, full: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        if full == "gettempdir":
            raise FileNotFoundError(errno.ENOENT, f"No usable temporary directory found in ['{place}']")
        raise OSError(errno.ENOSPC, "No space left on device", str(place))

    monkeypatch.setattr(tempfile, full, refuse)
    said = {
        "mkdtemp": f"cannot make a temporary folder in {place}: No space left on device; free some space there",
        "gettempdir": f"cannot make a temporary folder: No usable temporary directory found in ['{place}']; free some "
        "space there, or name another folder with TMPDIR",
    }
    with pytest.raises(StoreUnavailable) as failure:
        prepare(str(images), store, "pets")
    assert str(failure.value) == said[full]
