"""Our own package as an archive."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from starling.infra import layout
from starling.infra.bootstrap import pip_wheel
from starling.infra.bootstrap.environment import constraints_sha256
from starling.infra.bootstrap.package import pack_package
from starling.infra.bootstrap.pip_wheel import write_pip_wheel
from starling.infra.code import unpack_code
from starling.infra.errors import UsageError
from starling.infra.store import Store

ROOT = Path(__file__).parents[3]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "constraints.txt")


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_archive_holds_the_package_its_requirements_and_their_versions(folder_store: Store, tmp_path: Path) -> None:
    sha256 = pack_package(folder_store)
    assert pack_package(folder_store) == sha256
    place = unpack_code(folder_store, sha256, tmp_path / "unpacked")
    assert files_below(place / "starling") == files_below(ROOT / "starling")
    constraints = place / "starling" / "infra" / "bootstrap" / "constraints.txt"
    assert constraints.read_bytes() == (ROOT / "constraints.txt").read_bytes()
    wanted = {Requirement(line).name for line in (place / "requirements.txt").read_text().splitlines()}
    pinned = {line.split("==")[0].lower() for line in constraints.read_text().splitlines() if "==" in line}
    assert {"boto3", "pydantic", "torch"} <= wanted
    assert {name.lower() for name in wanted} <= pinned
    assert not wanted & {"pytest", "moto"}
    assert len(constraints_sha256()) == 64


def test_an_installed_wheel_packs_the_same_files_as_a_checkout(tmp_path: Path) -> None:
    """Package data that is not declared would be missing on nodes of users who have installed Starling."""
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    checkout.mkdir()
    for name in BUILT_FROM:  # elsewhere, because building leaves things behind
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(
        ROOT / "starling", checkout / "starling", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(checkout)], check=True, cwd=tmp_path)
    assert files_below(site / "starling") == files_below(checkout / "starling")


def test_a_pip_travels_along(folder_store: Store, tmp_path: Path) -> None:
    place = unpack_code(folder_store, pack_package(folder_store), tmp_path / "unpacked")
    [wheel] = place.glob("pip-*.whl")
    assert wheel.name == f"pip-{metadata.version('pip')}-py3-none-any.whl"
    (tmp_path / "again").mkdir()
    assert write_pip_wheel(tmp_path / "again").read_bytes() == wheel.read_bytes()
    code = layout.code(pack_package(folder_store))
    assert len(folder_store.get(code).data) < 6 * 2**20, "every boot fetches it"


def test_a_python_whose_pip_is_of_no_use_sends_the_one_it_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pip_wheel, "LEAST_PIP", (9000,))
    with pytest.raises(UsageError, match=f"{re.escape(metadata.version('pip'))} is too old"):
        write_pip_wheel(tmp_path)
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "pip-9000.1-py3-none-any.whl").write_bytes(b"newer")
    assert write_pip_wheel(tmp_path, tmp_path / "brought").read_bytes() == b"newer"
