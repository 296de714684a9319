"""Half of something is never restored: files cut in the folder, snapshots damaged in the store."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from starling.infra import layout
from starling.infra.store import open_store
from tests.integration.runs.commands import Commands
from tests.integration.runs.scripts import ScriptRun

CARELESS = Path(__file__).parents[2] / "support" / "careless_script.py"


@pytest.fixture
def script(starling: Commands) -> ScriptRun:
    run = f"careless_script.py out {starling.folder} 100"
    return ScriptRun(starling, CARELESS.read_text(), run, settle=0.2, grace=2)


def script_process(starling: Commands) -> psutil.Process:
    pids = [pid for node in starling.status()["nodes"] for pid in node["pids"]]
    processes = (psutil.Process(pid) for pid in pids)
    return next(process for process in processes if CARELESS.name in process.cmdline()[2:3])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.05)


def test_a_file_that_was_being_written_is_not_kept_when_its_process_dies(starling: Commands, script: ScriptRun) -> None:
    starling.run()
    script.wait_snapshot(1)
    (starling.folder / "tear").touch()
    wait_for(starling.folder / "torn")
    torn = max(path.name for path in starling.folder.rglob("work/../code/out/count-*.json"))
    (starling.folder / "tear").unlink()
    time.sleep(3)  # it hangs, so the folder seems to be at rest
    script_process(starling).kill()
    result = starling.result()
    assert result["state"] == "done", (result["error"], result["traceback"], starling.type("events", "r").stdout)
    starts = script.starts()
    assert len(starts) == 2
    assert starts[1]["step"] > 0
    assert torn not in starts[1]["files"]
    (dropped,) = starling.events("folder-dropped")
    assert f"signal 9, and {torn} was being written" in dropped["reason"]
    (failure,) = script.failures()
    assert "SIGKILL" in failure.error


def test_damaged_snapshots_are_passed_over_after_a_stop(starling: Commands, script: ScriptRun) -> None:
    starling.run()
    script.wait_snapshot(2)
    assert starling.type("stop", "r").returncode == 0
    newest = script.snapshots()[-1]
    before = script.snapshots()[-2]
    gained = {file.path for file in newest.files} - {file.path for file in before.files}
    lost = max(path for path in gained if path.startswith("count-"))
    (sha256,) = (file.sha256 for file in newest.files if file.path == lost)
    store = open_store(str(script.store))
    good = store.get(layout.snapshot_file("r", sha256)).data
    store.put(layout.snapshot_file("r", sha256), good.replace(b"count", b"cuont"))
    assert starling.type("resume", "r", "--detach").returncode == 0
    result = starling.result()
    assert result["state"] == "done", result
    (skipped,) = starling.events("snapshot-skipped")
    assert skipped["data"]["number"] == newest.number
    starts = script.starts()
    assert starts[-1]["step"] == max(int(file.path[6:12]) for file in before.files if file.path[:6] == "count-")


def test_a_script_that_fails_again_and_again_fails_the_run_with_its_last_words(
    starling: Commands, script: ScriptRun
) -> None:
    (starling.folder / "fail").touch()
    done = starling.type("run", str(starling.spec), "--name", "r")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ZeroDivisionError: careless" in done.stdout
    assert len(script.failures()) == 3
    result = starling.result()
    assert "3 tries in a row" in result["error"]
    assert "careless_script.py" in result["traceback"]
