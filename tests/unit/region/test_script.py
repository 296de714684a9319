"""Region scripts: what they say, in order, and what is wrong with those that cannot be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.infra.region.script import (
    Capacity,
    Fail,
    Lose,
    Price,
    Rebalance,
    Take,
    Throttle,
    Timed,
    due,
    parse_script,
    read_script,
)

ROOT = Path(__file__).parents[3]


def test_every_kind_of_entry() -> None:
    script = parse_script(
        [
            {"at": "3m", "take": {"zone": "us-east-1a", "type": "g5.xlarge", "nodes": 2, "notice": "90s"}},
            {"at": "4m", "lose": {"nodes": "all"}},
            {"at": "5m", "rebalance": None},
            {"at": 0, "dry": {"zone": "us-east-1b"}},
            {"at": 60, "capacity": {"type": "g5.*", "nodes": 3, "market": "on-demand"}},
            {"at": "6m", "throttle": "30s"},
            {"at": "7m", "fail": {"action": "CreateFleet", "code": "InternalError", "times": 2}},
            {"at": "8m", "fail": {"action": "Describe*", "code": "Unavailable", "for": "1m30s"}},
            {"at": "9m", "price": {"type": "g5.xlarge", "zone": "us-east-1a", "price": 1}},
        ],
        "script",
    )
    assert [(timed.at, timed.action) for timed in script] == [
        (0, Capacity(zone="us-east-1b", nodes=0)),
        (60, Capacity(type="g5.*", nodes=3, market="on-demand")),
        (180, Take(zone="us-east-1a", type="g5.xlarge", nodes=2, notice=90)),
        (240, Lose(nodes="all")),
        (300, Rebalance()),
        (360, Throttle(seconds=30)),
        (420, Fail(action="CreateFleet", code="InternalError", times=2)),
        (480, Fail.model_validate({"action": "Describe*", "code": "Unavailable", "for": 90})),
        (540, Price(type="g5.xlarge", zone="us-east-1a", price=1)),
    ]


def test_what_is_left_out_is_a_spot_instance_with_two_minutes_notice() -> None:
    (timed,) = parse_script([{"at": "1m", "take": None}], "script")
    assert timed.action == Take(zone="*", type="*", market="spot", nodes=1, notice=120)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"at": "1m"}, "a region script is a list"),
        ([3], "entry 1 is 3"),
        ([{"at": 0, "dry": {}}, {"take": {}}], "entry 2 does not say when"),
        ([{"at": "1m"}], "entry 1 has nothing to do"),
        ([{"at": "1m", "take": {}, "lose": {}}], "entry 1 has take, lose; it needs exactly one of take, lose"),
        ([{"at": "1m", "grab": {}}], "entry 1 has grab; it needs exactly one of take"),
        ([{"at": "soon", "take": {}}], "entry 1: at: 'soon' is no duration"),
        ([{"at": -5, "take": {}}], "entry 1: at: Input should be greater than or equal to 0"),
        ([{"at": 1, "take": {"node": 1}}], "entry 1: take: node: there is no such key"),
        ([{"at": 1, "take": {"nodes": "some"}}], "take: nodes: 'some' is neither a whole number nor \"all\""),
        ([{"at": 1, "take": {"nodes": True}}], "take: nodes: True is neither a whole number"),
        ([{"at": 1, "take": {"market": "cheap"}}], "take: market: Input should be 'spot', 'on-demand' or '*'"),
        ([{"at": 1, "take": []}], "take: Input should be a valid dictionary"),
        ([{"at": 1, "capacity": {"zone": "us-east-1a"}}], "capacity: nodes: Field required"),
        ([{"at": 1, "throttle": "a while"}], "throttle: seconds: 'a while' is no duration"),
        ([{"at": 1, "fail": {"action": "X", "code": "Y"}}], "fail: say how long it lasts"),
    ],
)
def test_what_is_wrong_is_said(entries: object, complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_script(entries, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")
    assert complaint in str(error.value)


def test_files_that_are_no_scripts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read"):
        read_script(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("- {at: 1m")
    with pytest.raises(UsageError, match=r"broken\.yaml is no YAML"):
        read_script(tmp_path / "broken.yaml")


def test_each_entry_is_due_exactly_once() -> None:
    script = tuple(Timed(at=at, action=Throttle(seconds=1)) for at in (0.0, 10.0, 10.0, 25.0))
    looks = [None, 0.0, 9.99, 10.0, 24.0, 60.0, 600.0]
    played = [
        [timed.at for timed in due(script, after, now)] for after, now in zip(looks, [*looks[1:], 1e9], strict=True)
    ]
    assert played == [[0.0], [], [10.0, 10.0], [], [25.0], [], []]


def test_the_shipped_script_has_all_that_a_rehearsal_is_to_show() -> None:
    script = read_script(ROOT / "configs" / "rehearsal.yaml")
    kinds = {type(timed.action) for timed in script}
    assert {Capacity, Take, Lose, Throttle} <= kinds
    assert (ROOT / "starling/infra/region/rehearsal.yaml").read_text() == (ROOT / "configs/rehearsal.yaml").read_text()
