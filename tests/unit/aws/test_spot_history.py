"""A price history is a step function."""

from __future__ import annotations

import pytest

from starling.cli.market_text import BLOCKS, PLAIN, sparkline
from starling.infra.providers.aws.spot_prices import Change, History, history


def of(*entries: tuple[float, float], start: float = 0.0, end: float = 100.0) -> History:
    changes = [Change(at=at, price=price) for at, price in entries]
    return history(instance_type="g5.xlarge", zone="us-east-1a", changes=changes, start=start, end=end)


def test_the_mean_is_weighted_by_time() -> None:
    told = of((0, 1.0), (90, 11.0))
    assert told.mean == pytest.approx(2.0)
    assert (told.now, told.lowest, told.highest, told.changes) == (11.0, 1.0, 11.0, 1)


def test_the_last_change_before_the_start_is_the_price_at_the_start() -> None:
    told = of((-500, 2.0), (50, 4.0))
    assert told.steps[0] == Change(at=0, price=2.0)
    assert (told.mean, told.changes) == (pytest.approx(3.0), 1)


def test_of_several_entries_before_the_start_the_latest_holds() -> None:
    assert of((-500, 9.0), (-400, 2.0)).mean == 2.0
    assert of((-400, 2.0), (0, 3.0)).steps == (Change(at=0, price=3.0),)


def test_entries_come_in_any_order_and_repeated_prices_are_no_changes() -> None:
    told = of((60, 1.0), (80, 2.0), (0, 1.0), (20, 1.0))
    assert [step.at for step in told.steps] == [0, 80]
    assert told.changes == 1


def test_a_place_that_is_new_counts_from_its_first_price() -> None:
    told = of((75, 4.0))
    assert (told.mean, told.changes) == (4.0, 0)
    assert sparkline(told, 0.0, 4.0, width=4) == "   █"


def test_a_price_that_came_this_instant_is_its_own_mean() -> None:
    assert of((100, 4.0)).mean == 4.0


def test_parts_have_means_of_their_own() -> None:
    told = of((0, 1.0), (50, 3.0))
    assert told.mean_between(0, 50) == 1.0
    assert told.mean_between(25, 75) == pytest.approx(2.0)
    assert told.mean_between(60, 60) == 3.0


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    told = of((0, 1.0), (25, 2.0), (50, 9.0), (75, 1.0))
    assert sparkline(told, 1.0, 9.0, width=4) == "▁▂█▁"
    assert sparkline(told, 1.0, 9.0, PLAIN, width=4) == "_.@_"
    assert len(BLOCKS) == len(PLAIN)


def test_a_flat_price_is_a_flat_line() -> None:
    assert sparkline(of((0, 1.0)), 1.0, 1.0, width=3) == "▁▁▁"
