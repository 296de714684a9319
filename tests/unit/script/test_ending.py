"""How scripts are ended, and how long they may take for it."""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path

import pytest

from starling.infra.store.folder import FolderStore
from starling.trainer.script import ending as ending_module
from starling.trainer.script.ending import LEAST_GRACE_SECONDS, WritersSeen, end_processes, grace_seconds
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.processes import ROUND, ScriptProcesses
from starling.trainer.script.trust import Ending, judge
from tests.support.script_rounds import job


@pytest.mark.parametrize(
    ("within", "upload", "expected"),
    [
        (None, 100.0, 30.0),  # nobody is taken: all of the grace period
        (120.0, 0.1, 30.0),
        (20.0, 0.1, 15.0),  # 5 s are kept for the upload at least
        (120.0, 50.0, 30.0),
        (120.0, 55.0, 30.0),
        (100.0, 40.0, 30.0),
        (60.0, 40.0, 30.0),  # half of the time at most
        (8.0, 0.1, 4.0),
        (0.0, 0.1, 0.5),
    ],
)
def test_what_an_upload_takes_is_kept_of_a_notice(within: float | None, upload: float, expected: float) -> None:
    assert grace_seconds(within, upload, 30.0) == expected


class Script:
    """A shell command as a script, on the node of rank 0."""

    def __init__(self, folder: Path, command: str) -> None:
        self.keeper = Keeper(FolderStore(folder / "store"), job(folder))
        self.keeper.job.folder.mkdir(parents=True)
        mark = f"test.{secrets.token_hex(4)}"
        process = subprocess.Popen(["sh", "-c", command], cwd=self.keeper.job.folder, env={ROUND: mark, "PATH": "/bin"})
        self.processes = ScriptProcesses({0: process}, mark, signal_group=False)

    def wait_for(self, name: str) -> None:
        until = time.monotonic() + 20
        while not (self.keeper.job.folder / name).exists():
            assert time.monotonic() < until
            time.sleep(0.01)

    def end(self, until: float | None) -> Ending:
        return end_processes(self.processes, self.keeper, until, WritersSeen(at=0.0, written=None))


def test_a_script_that_had_failed_before_it_was_asked_did_not_end_on_being_asked(tmp_path: Path) -> None:
    script = Script(tmp_path, "echo half > model.pt; exit 1")
    script.processes.wait(20.0)
    ending = script.end(time.monotonic() + 5)
    assert ending.asked is False
    assert ending.exit_codes == (1,)
    assert not judge(ending, 2.0).trusted


def test_a_script_that_fails_on_being_asked_has_ended_by_itself(tmp_path: Path) -> None:
    script = Script(tmp_path, "trap 'echo more > model.pt; exit 1' TERM; touch began; while true; do sleep 0.01; done")
    script.wait_for("began")
    ending = script.end(time.monotonic() + 20)
    assert ending.asked is True
    assert ending.exit_codes == (1,)
    assert judge(ending, 2.0).trusted


def test_waiting_for_a_file_and_for_the_end_share_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(tmp_path, "trap '' TERM; exec 3> model.pt; touch began; while true; do sleep 0.01; done")
    script.wait_for("began")
    let_save, terminate, wait = ending_module._let_save, script.processes.terminate, script.processes.wait
    for_the_file, for_the_end, asked_at = [], [], []

    def saving(processes: ScriptProcesses, keeper: Keeper, seconds: float) -> None:
        for_the_file.append(seconds)
        let_save(processes, keeper, seconds)

    def asked() -> None:
        asked_at.append(time.monotonic())
        terminate()

    def waiting(seconds: float) -> None:
        for_the_end.append(seconds)
        wait(seconds)

    monkeypatch.setattr(ending_module, "_let_save", saving)
    monkeypatch.setattr(script.processes, "terminate", asked)
    monkeypatch.setattr(script.processes, "wait", waiting)
    until = time.monotonic() + 1.0
    ending = script.end(until)
    assert ending.exit_codes == (None,)
    assert len(for_the_file) == len(for_the_end) == 1
    assert for_the_file[0] <= 0.5, "half of the time"
    assert for_the_end[0] <= max(LEAST_GRACE_SECONDS, until - asked_at[0]), "what is left of it"
    assert time.monotonic() >= asked_at[0] + for_the_end[0]
    assert ending.written_before == ending.written_last == "model.pt"


def test_no_time_left_is_still_a_moment_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending_module, "LEAST_GRACE_SECONDS", 20.0)
    script = Script(tmp_path, "trap 'exit 3' TERM; touch began; while true; do sleep 0.01; done")
    script.wait_for("began")
    assert script.end(time.monotonic() - 1).exit_codes == (3,)
