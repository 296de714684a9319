"""A schedule is a function of its seed; it can be read, written, and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.schedule import (
    FREEZE_SECONDS,
    NOTICE_SECONDS,
    TROUBLE_SECONDS,
    Fault,
    Kind,
    Moment,
    Schedule,
    Trouble,
    Who,
    schedule,
)
from chaos.trouble import folder_rules, proxy_scripts
from starling.infra.errors import UsageError

MANY = [fault for seed in range(40) for fault in schedule(seed, 25, "folder").faults]


def test_the_same_seed_is_the_same_schedule() -> None:
    assert schedule(7, 12, "s3") == schedule(7, 12, "s3")
    assert len({str(schedule(seed, 12, "s3")) for seed in range(20)}) == 20


def test_everything_that_can_go_wrong_does_in_some_schedule() -> None:
    assert {fault.kind for fault in MANY} == set(Kind)
    assert {fault.moment for fault in MANY} == set(Moment)
    assert {fault.who for fault in MANY} == set(Who)
    assert {fault.trouble for fault in MANY} == {None, *Trouble}


def test_durations_stay_within_their_bounds() -> None:
    bounds = {
        Kind.NOTICE: NOTICE_SECONDS,
        Kind.FREEZE_NODE: FREEZE_SECONDS,
        Kind.FREEZE_WORKER: FREEZE_SECONDS,
        Kind.STORE: TROUBLE_SECONDS,
    }
    for fault in MANY:
        if fault.kind in bounds:
            least, most = bounds[fault.kind]
            assert least <= fault.seconds <= most
        assert (fault.trouble is not None) == (fault.kind is Kind.STORE)
        assert 1 <= fault.nodes_max <= 4


def test_a_schedule_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = schedule(3, 20, "folder")
    made.write(tmp_path / "schedule.json")
    assert Schedule.read(tmp_path / "schedule.json") == made


@pytest.mark.parametrize("text", ["", "{}", '{"seed": 1, "store": "tape", "faults": []}'])
def test_what_is_no_schedule_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "schedule.json").write_text(text)
    with pytest.raises(UsageError, match=r"schedule\.json is no schedule"):
        Schedule.read(tmp_path / "schedule.json")


def test_a_schedule_can_be_read_by_people() -> None:
    fault = Fault(kind=Kind.NOTICE, who=Who.TWO, seconds=2.5, after_steps=4, moment=Moment.FORMING, delay=0.3)
    text = str(Schedule(seed=1, store="folder", faults=(fault,)))
    assert "1. after 4 steps, while a group forms and 0.3 s: notice of 2.5 s to two nodes" in text


@pytest.mark.parametrize("trouble", Trouble)
def test_both_stores_know_every_trouble(trouble: Trouble) -> None:
    assert folder_rules(trouble, 0.5)
    assert proxy_scripts(trouble)
