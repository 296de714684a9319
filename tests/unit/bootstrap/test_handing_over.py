"""Stage 0 hands itself over to systemd, and stage 1 has a limit."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from starling.infra.bootstrap import stage0
from starling.infra.bootstrap.stage0 import BOOT_SECONDS, BootError, run_stage_1

BOOT = {"node": "eyes.0.0"}


@pytest.mark.parametrize("accepts", [True, False])
def test_systemd_takes_the_boot_over_or_it_goes_on_here(tmp_path: Path, accepts: bool) -> None:
    asked, off = tmp_path / "asked", tmp_path / "off"
    systemd_run = tmp_path / "systemd-run"
    systemd_run.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done > {asked}\nexit {0 if accepts else 1}\n')
    systemd_run.chmod(0o700)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "STARLING_ROOT": str(tmp_path / "root"),
        "STARLING_POWEROFF": f"touch {off}",
    }
    ran = subprocess.run([sys.executable, stage0.__file__], env=environment, capture_output=True, check=False)
    words = asked.read_text().splitlines()
    assert words[-3:] == [sys.executable, stage0.__file__, "unit"]
    assert f"-pRuntimeMaxSec={BOOT_SECONDS + 180}" in words
    assert any(word.startswith("-pExecStopPost=") for word in words)
    assert ran.returncode == (0 if accepts else 1)
    assert (tmp_path / "root").exists() is not accepts, "who was handed over writes nothing"
    assert off.exists() is not accepts, "the boot here cannot succeed: it has no configuration"


def stage_1(folder: Path, body: str) -> Path:
    """A package whose stage 1 does this."""
    (folder / "package").mkdir()
    begin = "import os, time\nbooting = int(os.environ['STARLING_BOOTING'])\n"
    (folder / "package" / "stage_1.py").write_text(begin + body)
    return folder / "package"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stage0, "ROOT", tmp_path)
    monkeypatch.setattr(stage0, "STAGE_1", "stage_1")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test's own process keeps its handlers
    return tmp_path


def test_a_boot_that_hangs_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    package = stage_1(root, "time.sleep(60)\n")
    with pytest.raises(BootError, match=f"longer than {BOOT_SECONDS} s"):
        run_stage_1(BOOT, package, time.monotonic() + 0.5)
    assert started[0].wait(10.0) == -signal.SIGKILL


def test_what_has_become_the_service_has_no_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As stage 1 does: the pipe closes with exec. From then on every look at the clock is a day later."""
    late = 0.0

    def select_and_leap(*arguments: Any) -> Any:
        nonlocal late
        found = select.select(*arguments)
        late = 86_400.0
        return found

    monkeypatch.setattr(stage0, "select", SimpleNamespace(select=select_and_leap))
    monkeypatch.setattr(stage0, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late))
    program = "import time; time.sleep(1)"
    body = (
        f"os.set_inheritable(booting, False)\nos.execv({sys.executable!r}, [{sys.executable!r}, '-c', {program!r}])\n"
    )
    assert run_stage_1(BOOT, stage_1(root, body), time.monotonic() + 60.0) == 0
