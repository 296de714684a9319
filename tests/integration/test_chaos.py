"""Short chaos over both kinds of store; `make chaos` plays longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.schedule import Fault, Kind, Moment, Schedule, Trouble, Who
from chaos.session import Session

FAULTS = (
    Fault(kind=Kind.STORE, after_steps=5, trouble=Trouble.LOST_ANSWERS, seconds=3, share=0.5),
    Fault(kind=Kind.KILL_NODE, after_steps=8, who=Who.RANK0),
    Fault(kind=Kind.NOTICE, moment=Moment.JOINING, seconds=15, who=Who.OTHER),
    Fault(kind=Kind.KILL_CONTROLLER, moment=Moment.ANY, seconds=1),
    Fault(kind=Kind.KILL_WORKER, after_steps=5, moment=Moment.UPLOADING),
)


@pytest.mark.parametrize("store", ["folder", "s3"])
def test_every_promise_holds_through_a_little_of_everything(store: str, tmp_path: Path) -> None:
    told: list[str] = []
    finding = Session(told.append, tmp_path / "failures").play(Schedule(seed=0, store=store, faults=FAULTS))
    assert finding.violations == (), "\n".join([*told, *finding.violations])
    assert [played.number for played in finding.evidence.played] == [1, 2, 3, 4, 5], told
    assert finding.kept is None


def test_what_was_left_behind_is_found_and_the_record_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted leftover, found on a real scene; the schedule beside it replays the run."""
    import chaos.driver

    ended = chaos.driver.Driver.run

    def run_and_leave(driver: chaos.driver.Driver) -> None:
        ended(driver)
        (driver._scene.temporary / "forgotten").touch()

    monkeypatch.setattr(chaos.driver.Driver, "run", run_and_leave)
    planned = Schedule(seed=5, store="folder", faults=())
    finding = Session(lambda _: None, tmp_path / "failures").play(planned)
    assert finding.violations == ("left behind: temporary file forgotten",)
    assert finding.kept is not None
    assert Schedule.read(finding.kept / "schedule.json") == planned
    assert "round 0" in (finding.kept / "events.txt").read_text()
