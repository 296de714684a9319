"""How long scripts may take to end, and when failing again and again is enough."""

from __future__ import annotations

import pytest

from starling.infra.records import Failure
from starling.trainer.script.ending import grace_seconds
from starling.trainer.script.telling import is_hopeless


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


def failures(*contents: str, fatal: bool = False) -> list[Failure]:
    return [
        Failure(at=1.0, node="r.0.0", rank=0, round=number, step=0, error="e", content=content, fatal=fatal)
        for number, content in enumerate(contents)
    ]


def test_a_script_is_given_up_after_three_failures_that_began_alike() -> None:
    assert not is_hopeless(failures("a", "a"))
    assert is_hopeless(failures("a", "a", "a"))
    assert is_hopeless(failures("", "b", "b", "b"))


def test_a_script_that_gets_further_each_time_is_not_given_up() -> None:
    assert not is_hopeless(failures("a", "b", "c", "d"))
    assert not is_hopeless(failures("a", "a", "b", "b"))


def test_several_failures_of_one_round_count_once() -> None:
    assert not is_hopeless([*failures("a", "a"), *failures("a", "a")])


def test_what_trying_again_cannot_help_is_not_tried_again() -> None:
    assert is_hopeless(failures("a", fatal=True))
