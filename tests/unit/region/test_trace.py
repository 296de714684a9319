"""Spot traces: what their numbers mean must be said, and becomes a zone's capacity over time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.infra.region.script import Capacity
from starling.infra.region.trace import as_script, read_trace


def write(folder: Path, data: object, **metadata: object) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps({"metadata": {"gap_seconds": 300, **metadata}, "data": data}))
    return path


@pytest.mark.parametrize(
    ("meaning", "data", "counts"),
    [
        ("count", [0, 3, 3, 1], (0, 3, 3, 1)),
        ("available", [0, 1, 1, 0], (0, None, None, 0)),
        ("preempted", [0, 1, 1, 0], (None, 0, 0, None)),
    ],
)
def test_the_three_meanings(meaning: str, data: list[int], counts: tuple[int | None, ...], tmp_path: Path) -> None:
    beside = read_trace(f"us-east-1a={meaning}:{write(tmp_path, data)}")
    inside = read_trace(f"us-east-1a={write(tmp_path, data, values=meaning)}")
    assert beside == inside
    assert (beside.zone, beside.gap_seconds, beside.counts) == ("us-east-1a", 300, counts)


def test_what_is_said_beside_the_file_wins(tmp_path: Path) -> None:
    path = write(tmp_path, [1, 0], values="available")
    assert read_trace(f"us-east-1a=preempted:{path}").counts == (0, None)


def test_numbers_without_a_meaning_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [0, 1])
    with pytest.raises(UsageError, match=f"write --trace us-east-1a=MEANING:{path}"):
        read_trace(f"us-east-1a={path}")


def test_a_count_cannot_be_a_yes_or_no(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has a 4, so .* preempted cannot be meant, but count"):
        read_trace(f"us-east-1a=preempted:{write(tmp_path, [0, 4])}")


@pytest.mark.parametrize(
    "text", ['{"data": [1]}', '{"metadata": {"gap_seconds": 300, "values": "count"}, "data": "x"}', "[1, 2]", "nothing"]
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"is no spot trace.*gap_seconds"):
        read_trace(f"us-east-1a=count:{path}")


@pytest.mark.parametrize("data", [[], [1, -1], [1, 2.5], [True]])
def test_other_numbers_are_refused(data: list[object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole numbers from 0"):
        read_trace(f"us-east-1a=count:{write(tmp_path, data)}")


def test_a_trace_needs_a_zone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="write ZONE=FILE"):
        read_trace(str(write(tmp_path, [1])))


def test_only_changes_become_actions(tmp_path: Path) -> None:
    first = read_trace(f"us-east-1a=count:{write(tmp_path, [2, 2, 0, 0, 1])}")
    second = read_trace(f"us-east-1b=available:{write(tmp_path, [1, 0])}")
    assert [(timed.at, timed.action) for timed in as_script([first, second])] == [
        (0, Capacity(zone="us-east-1a", nodes=2)),
        (0, Capacity(zone="us-east-1b", nodes=None)),
        (300, Capacity(zone="us-east-1b", nodes=0)),
        (600, Capacity(zone="us-east-1a", nodes=0)),
        (1200, Capacity(zone="us-east-1a", nodes=1)),
    ]
