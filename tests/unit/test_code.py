"""Users' code: packed by content, unpacked whole."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from starling.infra import code, layout
from starling.infra.code import pack_code, unpack_code
from starling.infra.errors import ObjectCorrupt, StarlingError, UsageError
from starling.infra.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "task.py").write_text("one = 1\n")
    (folder / "pkg" / "deep.py").write_text("two = 2\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link.py").symlink_to("pkg/deep.py")
    for name in (".git", "__pycache__", ".venv"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("no")
    (folder / "old.pyc").write_text("no")
    return folder


def test_comes_back_as_it_was_without_what_nobody_needs(folder: Path, folder_store: Store, tmp_path: Path) -> None:
    place = unpack_code(folder_store, pack_code(folder, folder_store), tmp_path / "node" / "code")
    found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if not path.name.startswith("."))
    assert found == ["link.py", "pkg", "pkg/deep.py", "run.sh", "task.py"]
    assert (place / "link.py").read_text() == "two = 2\n"
    assert os.access(place / "run.sh", os.X_OK)


def test_the_hash_depends_on_content_only(folder: Path, folder_store: Store) -> None:
    first = pack_code(folder, folder_store)
    for path in folder.rglob("*.py"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert pack_code(folder, folder_store) == first
    (folder / "task.py").write_text("one = 2\n")
    assert pack_code(folder, folder_store) != first


def test_ignored_files_stay_out(folder: Path, folder_store: Store, tmp_path: Path) -> None:
    (folder / ".starlingignore").write_text("# comment\n\npkg/\n*.sh\n")
    place = unpack_code(folder_store, pack_code(folder, folder_store), tmp_path / "code")
    assert not (place / "pkg").exists()
    assert not (place / "run.sh").exists()
    assert (place / "task.py").exists()


def test_negated_patterns_are_refused_rather_than_misread(folder: Path, folder_store: Store) -> None:
    (folder / ".starlingignore").write_text("!task.py\n")
    with pytest.raises(UsageError, match="not supported"):
        pack_code(folder, folder_store)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd"])
def test_links_that_lead_outside_are_refused(folder: Path, folder_store: Store, target: str) -> None:
    (folder / "out").symlink_to(target)
    with pytest.raises(UsageError, match="points outside the folder"):
        pack_code(folder, folder_store)


def test_too_much_is_refused_by_name(folder: Path, folder_store: Store) -> None:
    with (folder / "data.bin").open("wb") as big:
        big.truncate(code.MAX_BYTES + 1)
    with pytest.raises(UsageError, match=r"largest: data\.bin"):
        pack_code(folder, folder_store)


def test_no_folder(folder_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        pack_code(tmp_path / "none", folder_store)


def test_unpacking_again_changes_nothing_but_other_code_replaces_it(
    folder: Path, folder_store: Store, tmp_path: Path
) -> None:
    first = pack_code(folder, folder_store)
    place = unpack_code(folder_store, first, tmp_path / "code")
    (place / "made-by-a-worker").write_text("kept")
    unpack_code(folder_store, first, tmp_path / "code")
    assert (place / "made-by-a-worker").exists()
    (folder / "task.py").write_text("one = 3\n")
    unpack_code(folder_store, pack_code(folder, folder_store), tmp_path / "code")
    assert (place / "task.py").read_text() == "one = 3\n"
    assert not (place / "made-by-a-worker").exists()
    assert [path.name for path in tmp_path.glob(".code-*")] == []


def test_damaged_code_is_not_unpacked(folder: Path, folder_store: Store, tmp_path: Path) -> None:
    sha256 = pack_code(folder, folder_store)
    data = folder_store.get(layout.code(sha256)).data
    folder_store.put(layout.code(sha256), data[:-1] + b"x")
    with pytest.raises(ObjectCorrupt):
        unpack_code(folder_store, sha256, tmp_path / "code")
    assert not (tmp_path / "code").exists()


@pytest.mark.parametrize("filters", [True, False], ids=["3.11.4", "3.11.0"])
def test_a_link_out_of_the_folder_is_not_unpacked(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: bool
) -> None:
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("pkg/link")
        info.type, info.linkname = tarfile.SYMTYPE, "../../outside"
        tar.addfile(info)
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    folder_store.put(layout.code(sha256), packed.getvalue())
    with pytest.raises((StarlingError, tarfile.FilterError), match="link"):
        unpack_code(folder_store, sha256, tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_the_first_pythons_3_11_unpack_too(
    folder: Path, folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tarfile has had filters since 3.11.4 only."""
    sha256 = pack_code(folder, folder_store)
    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)  # which knows no `filter` there
    place = unpack_code(folder_store, sha256, tmp_path / "code")
    assert (place / "link.py").read_text() == "two = 2\n"
    assert os.access(place / "run.sh", os.X_OK)
