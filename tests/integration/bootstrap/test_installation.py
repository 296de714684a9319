"""Images without an environment: one is made, by pip, from wheels in a folder.

The list of what to install is a short one here; the true one takes an index and minutes, and shows on an instance only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import starling
from starling.infra.bootstrap import environment
from starling.infra.bootstrap.environment import environment_python, pins
from starling.infra.bootstrap.pip_wheel import write_pip_wheel
from starling.infra.bootstrap.pythons import choose_python
from starling.infra.bootstrap.stage0 import BootError, BootLog
from starling.infra.code import pack_code
from starling.infra.store import Store
from tests.integration.nodes.local_nodes import eventually
from tests.support.booting import BootMachine
from tests.support.pythons import installed, without_ensurepip
from tests.support.wheels import write_wheel

ASK = "import importlib.metadata as m, json, tiny; print(json.dumps([tiny.__file__, m.version('torch')]))"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "tiny", "1", {"tiny.py": ""})
    write_wheel(folder, "tiny", "2", {"tiny.py": ""})
    return folder


def short_package(store: Store, folder: Path, *, requirements: str, constraints: str) -> str:
    """Our package as it is, but for what is to be installed."""
    shutil.copytree(Path(starling.__file__).parent, folder / "starling", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements.txt").write_text(requirements)
    (folder / "starling" / "infra" / "bootstrap" / "constraints.txt").write_text(constraints)
    write_pip_wheel(folder)
    return pack_code(folder, store)


def boot_to_install(machine: BootMachine, python: str, wheels: Path, package_sha256: str) -> None:
    machine.prepare_run()
    machine.environment |= {"STARLING_PYTHON": python, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    machine.environment["PIP_CONFIG_FILE"] = "/dev/null"
    machine.boot(package_sha256=package_sha256)


def test_a_fresh_environment_with_pinned_versions_runs_the_agent(
    machine: BootMachine, tmp_path: Path, wheels: Path
) -> None:
    ours = sysconfig.get_paths()["purelib"]
    write_wheel(wheels, "dependencies", "1", {"dependencies.pth": f"{ours}\n"})  # all that the agent imports
    base = str(Path(sys.base_prefix) / "bin" / "python3")
    package = short_package(
        machine.store, tmp_path / "p", requirements="tiny\ndependencies\n", constraints="tiny==1\ndependencies==1\n"
    )
    boot_to_install(machine, base, wheels, package)
    machine.wait_training()
    installed = [path.name for path in (machine.root / "venv").rglob("tiny-*.dist-info")]
    assert installed == ["tiny-1.dist-info"], "the pinned version, not the newest"
    image = json.loads((machine.root / "image.json").read_text())
    assert image["python"] == str(machine.root / "venv" / "bin" / "python")
    assert machine.outside() == []


def test_a_torch_that_the_image_brings_is_kept(machine: BootMachine, tmp_path: Path, wheels: Path) -> None:
    """The base is an environment itself, with torch in it, as on the Deep Learning AMI."""
    # Python 3.11 puts an old one into new environments, which torch does not accept.
    write_wheel(wheels, "setuptools", metadata.version("setuptools"), {})
    package = short_package(
        machine.store, tmp_path / "p", requirements="tiny\ntorch>=2.11\n", constraints="tiny==1\ntorch==2.11.0\n"
    )
    boot_to_install(machine, sys.executable, wheels, package)
    machine.wait_training()
    python = machine.root / "venv" / "bin" / "python"
    answer = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True, cwd=tmp_path)
    place, torch = json.loads(answer.stdout)
    assert Path(place).is_relative_to(machine.root)
    assert torch == metadata.version("torch")
    assert f"keeping its torch {torch}" in machine.log()


def test_an_installation_that_fails(machine: BootMachine, tmp_path: Path, wheels: Path) -> None:
    package = short_package(machine.store, tmp_path / "p", requirements="tiny\n", constraints="tiny==3\n")
    boot_to_install(machine, sys.executable, wheels, package)
    assert machine.wait() == 1
    assert machine.powered_off
    status = machine.status()
    assert status is not None
    assert status.unfit is not None
    assert "pip could not install what a node needs (exit code 1):" in status.unfit
    assert "tiny==3" in status.unfit
    assert not (machine.root / "image.json").exists()


@pytest.fixture
def archive(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked archive whose requirements are `tiny`, from wheels of the test's own."""
    folder = tmp_path / "archive"
    folder.mkdir()
    write_pip_wheel(folder)
    (folder / "requirements.txt").write_text("tiny\n")
    (folder / "constraints.txt").write_text("tiny==1\n")
    monkeypatch.setattr(environment, "ARCHIVE", folder)
    monkeypatch.setattr(environment, "REQUIREMENTS", folder / "requirements.txt")
    monkeypatch.setattr(environment, "CONSTRAINTS", folder / "constraints.txt")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13"])
def test_an_image_whose_python_has_neither_pip_nor_ensurepip(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As on Ubuntu's cloud images, where both are packages of their own."""
    if (base := installed(name)) is None:
        pytest.skip(f"there is no {name} here")
    bare = without_ensurepip(base, tmp_path / "bare")
    assert (
        subprocess.run([str(bare), "-m", "venv", str(tmp_path / "v")], check=False, capture_output=True).returncode != 0
    )
    monkeypatch.setenv("STARLING_PYTHON", str(bare))
    root = tmp_path / "root"
    root.mkdir()
    python = environment_python(root, BootLog(root))
    ask = [str(python), "-m", "pip", "list", "--disable-pip-version-check", "--format", "freeze"]
    listed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    assert listed == [f"pip=={metadata.version('pip')}", "tiny==1"]
    assert (python.parent / "pip").exists(), "setup commands may call it"


def test_an_installation_has_one_limit_for_all_its_commands(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for it ends, and what pip said last is told. All but 15 s are over when pip is there."""
    project = tmp_path / "slow"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    told = tmp_path / "told"
    (project / "backend.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(300)\n"
    )
    (archive / "requirements.txt").write_text(f"{project}\n")
    monkeypatch.setenv("STARLING_PYTHON", sys.executable)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # pip has no time to clean up
    root = tmp_path / "root"
    root.mkdir()
    pip = root / "venv" / "bin" / "pip"
    monkeypatch.setattr(environment, "time", SimpleNamespace(monotonic=lambda: 585.0 if pip.exists() else 0.0))
    with pytest.raises(BootError, match=r"it did not end within the 15 s left for it") as failed:
        environment_python(root, BootLog(root), 600.0)
    assert str(project) in str(failed.value)
    build = int(told.read_text())
    eventually(lambda: not psutil.pid_exists(build), "what pip had started has ended with it")


def test_pins_give_way_to_a_torch_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLING_PYTHON", sys.executable)
    base = choose_python()
    found = pins("# ours\ntorch==9.1\ntorchvision==9.2\ntorchmetrics==1\nnumpy==2\n", base)
    lines = found.splitlines()
    assert lines[:3] == ["# ours", "torchmetrics==1", "numpy==2"]
    assert lines[3:] == [f"{name}=={metadata.version(name)}" for name in ("torch", "torchvision")]
