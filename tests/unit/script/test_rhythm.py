"""A break within saving is told from the end of saving by how the script has saved before."""

from __future__ import annotations

import pytest

from starling.trainer.script.rhythm import ENOUGH, FIRST, LONGEST, Rhythm

SETTLE = 2.0


def saved_at(rhythm: Rhythm, *times: float) -> Rhythm:
    for at in times:
        rhythm.observe([at, at - 0.5])
    return rhythm


def test_without_experience_a_rest_is_several_times_the_least() -> None:
    rhythm = Rhythm(SETTLE, since=100.0)
    assert rhythm.rest() == FIRST * SETTLE
    rhythm.observe([50.0, 99.0])
    assert saved_at(rhythm, 200.0).rest() == FIRST * SETTLE, "what was there before, and how long it took to start"


def test_a_rest_is_half_of_the_longest_break_between_two_savings() -> None:
    assert saved_at(Rhythm(SETTLE, since=0.0), 10, 50, 90).rest() == (40 - 0.5) / 2


def test_a_hiccup_within_one_saving_changes_little() -> None:
    assert saved_at(Rhythm(SETTLE, since=0.0), 10, 50, 53, 90, 130).rest() > 15


def test_a_script_that_saves_often_has_a_short_rest_but_never_less_than_settle() -> None:
    often = [10 + 3 * number for number in range(ENOUGH + 1)]
    assert saved_at(Rhythm(SETTLE, since=0.0), *often).rest() == SETTLE
    assert saved_at(Rhythm(SETTLE, since=0.0), *often[:-1]).rest() == FIRST * SETTLE, "too little is known"


@pytest.mark.parametrize("pauses", [2, 5, 20, 60])
def test_a_saving_with_many_pauses_is_not_taken_for_many_savings(pauses: int) -> None:
    rhythm = saved_at(Rhythm(SETTLE, since=0.0), 10, 110, 210)
    saving = [310 + 3 * number for number in range(pauses)]
    for at in saving:
        assert saved_at(rhythm, at).rest() > 40


def test_no_rest_is_longer_than_a_minute() -> None:
    assert saved_at(Rhythm(SETTLE, since=0.0), 10, 3610, 7210).rest() == LONGEST


def test_old_habits_are_forgotten() -> None:
    rhythm = saved_at(Rhythm(SETTLE, since=0.0), 10, 1010)
    assert saved_at(rhythm, *range(1020, 1480, 10)).rest() == LONGEST
    assert saved_at(rhythm, *range(1480, 1580, 10)).rest() == (10 - 0.5) / 2
