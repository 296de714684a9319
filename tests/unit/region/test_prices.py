"""Prices of the emulated cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.infra.region.prices import STEP_SECONDS, SWING, PriceBook

NOW = 1_800_000_000.0


def test_a_history_begins_with_what_held_at_its_start() -> None:
    book = PriceBook()
    history = book.history("g5.xlarge", "us-east-1a", NOW - 10 * STEP_SECONDS, NOW)
    assert history[0].at <= NOW - 10 * STEP_SECONDS < history[1].at
    assert len(history) in (10, 11)
    base = 1.006 * 0.42
    assert all(abs(change.price / base - 1) <= SWING + 0.01 for change in history)
    assert len({change.price for change in history}) > 3
    assert book.spot("g5.xlarge", "us-east-1a", NOW) == history[-1].price


def test_it_is_the_same_whoever_asks_when() -> None:
    book = PriceBook()
    whole = book.history("g5.xlarge", "us-east-1a", NOW - 40 * STEP_SECONDS, NOW)
    later = book.history("g5.xlarge", "us-east-1a", NOW - 5 * STEP_SECONDS, NOW)
    assert later == whole[-len(later) :]


def test_a_price_that_is_set_holds_from_then_on() -> None:
    book = PriceBook()
    before = book.history("g5.xlarge", "us-east-1a", NOW - STEP_SECONDS, NOW)
    book.set_spot("g5.xlarge", "us-east-1a", 2.5, NOW)
    assert book.spot("g5.xlarge", "us-east-1a", NOW + 30 * STEP_SECONDS) == 2.5
    assert book.spot("g5.xlarge", "us-east-1b", NOW) != 2.5
    after = book.history("g5.xlarge", "us-east-1a", NOW - STEP_SECONDS, NOW + 1)
    assert after[: len(before)] == before
    assert [change.price for change in after[len(before) :]] == [2.5]


def test_what_the_file_does_not_name_is_not_sold() -> None:
    book = PriceBook()
    assert book.history("x1.32xlarge", "us-east-1a", 0, NOW) == []
    assert book.on_demand("x1.32xlarge") is None
    assert book.spot("g5.xlarge", "us-east-1z", NOW) is None


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"types": {}}')
    with pytest.raises(UsageError, match=r"no file of prices.*prices\.json shows the form"):
        PriceBook(tmp_path / "prices.json")
