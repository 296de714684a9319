"""`starling rehearse`, whole: four nodes in the emulated region, everything that the shipped script does to them, and
nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from starling.infra.processes import marks_by_pid
from starling.infra.region.keeper import MACHINE
from tests.integration.region.conftest import wait_for

ROOT = Path(__file__).parents[3]
SPEC = "configs/retinopathy-aws.yaml"


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """With temporary files in a folder of our own, so that we see what it leaves; SIGABRT makes it tell where it is."""
    return subprocess.Popen(
        [sys.executable, "-m", "starling.cli", "rehearse", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells have what they start in the background ignore Ctrl-C; the tests may be that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_end(process: subprocess.Popen[str]) -> None:
    try:
        process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(f"it does not end:\n{process.communicate()[1]}") from None


def processes_of(folder: Path) -> set[int]:
    below = f"{folder.resolve()}/"
    marked = marks_by_pid([MACHINE, "STARLING_HOME"])
    return {pid for pid, marks in marked.items() if any(value.startswith(below) for value in marks.values())}


@pytest.mark.timeout(1800)  # some four minutes alone, ten beside three others
def test_the_shipped_rehearsal_keeps_every_promise(short_folder: Path) -> None:
    process = start(short_folder, SPEC, "--json")
    try:
        output, errors = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    told: dict[str, Any] = json.loads(output)
    assert all(told["promises"].values()), told["promises"]
    assert len(told["promises"]) == 4
    assert told["interruptions"]["notice"] >= 1
    assert told["interruptions"].get("lost", 0) + told["interruptions"].get("hard", 0) >= 1
    markets = {line["market"] for line in told["ledger"]}
    zones = {line["zone"] for line in told["ledger"]}
    assert markets == {"spot", "on-demand"}
    assert len(zones) >= 2
    assert 0 < told["cost"] < told["on_demand_cost"]
    assert told["rehearsed"]["recoveries"]
    assert list(short_folder.iterdir()) == []
    assert processes_of(short_folder) == set()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_rehearsal_that_is_ended_leaves_nothing(number: signal.Signals, short_folder: Path) -> None:
    process = start(short_folder, SPEC)
    try:
        wait_for("machines", lambda: any(short_folder.glob("*/vm/*/console.log")), patience=400)
        assert processes_of(short_folder)
        process.send_signal(number)
        wait_for_end(process)
        wait_for("the end of everything", lambda: not processes_of(short_folder), patience=150)
        wait_for("an empty folder", lambda: not list(short_folder.iterdir()), patience=150)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--script", "script.yaml"], "entry 1 has grab"),
        (["-o", "data={dataset: eyepacs}"], "there is no dataset eyepacs in it"),
        (["-o", "rehearsal={training.epoch: 3}"], "training.epoch: "),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(words: list[str], said: str, short_folder: Path) -> None:
    script = short_folder / "script.yaml"
    script.write_text("- {at: 1m, grab: {}}")
    process = start(short_folder, SPEC, *(str(script) if word == script.name else word for word in words))
    try:
        _, errors = process.communicate(timeout=150)
    finally:
        process.terminate()  # had it begun after all, it would have to clear up
        process.wait()
    assert process.returncode == 2
    assert said in errors
    assert list(short_folder.iterdir()) == [script]
