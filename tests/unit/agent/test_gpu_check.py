from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from starling.infra.agent import gpus
from starling.infra.bootstrap.driver import driver_version

Process = subprocess.Popen[str]

TWO = "0, GPU-aa, 81559 MiB\n1, GPU-bb, 81559 MiB"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in program of that name; the test writes what it does."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "nvidia-smi"


def does(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_run_without_gpus_asks_nobody(nvidia_smi: Path) -> None:
    does(nvidia_smi, "exit 1")
    assert gpus.complaint(0) is None


def test_enough_healthy_gpus(nvidia_smi: Path) -> None:
    does(nvidia_smi, f"echo '{TWO}'")
    assert gpus.complaint(2) is None


def test_too_few(nvidia_smi: Path) -> None:
    does(nvidia_smi, f"echo '{TWO}'; echo '2, [Unknown Error], [Unknown Error]'")
    assert "2 healthy GPUs, 3 wanted" in (gpus.complaint(3) or "")


def test_a_driver_that_fails(nvidia_smi: Path) -> None:
    does(nvidia_smi, "echo 'Unable to determine the device handle for GPU0' >&2; exit 15")
    assert gpus.complaint(1) == "nvidia-smi failed with 15: Unable to determine the device handle for GPU0"


def test_no_driver(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(nvidia_smi.parent))
    assert "nvidia-smi is missing" in (gpus.complaint(1) or "")


def test_a_driver_that_hangs(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does(nvidia_smi, "exec sleep 20")
    monkeypatch.setattr(gpus, "TIMEOUT_SECONDS", 0.2)
    assert "did not answer" in (gpus.complaint(1) or "")


def test_a_driver_that_hangs_and_cannot_be_killed(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an uninterruptible sleep: SIGKILL changes nothing, and waiting for its end would last for ever."""
    kill: Callable[[Process], None] = subprocess.Popen.kill
    hanging: list[Process] = []
    does(nvidia_smi, "exec sleep 60")
    monkeypatch.setattr(gpus, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(gpus, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: hanging.append(process))
    began = time.monotonic()
    try:
        assert "did not answer" in (gpus.complaint(1) or "")
        with pytest.raises(subprocess.TimeoutExpired):
            driver_version()
        assert time.monotonic() - began < 30.0
        assert len(hanging) == 2
    finally:
        for process in hanging:
            kill(process)
            process.communicate()
