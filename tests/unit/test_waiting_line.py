"""Standing in line for the group's object: one brings all along, and nobody in particular has to survive."""

from __future__ import annotations

import time

import pytest

from starling.infra.store import Store
from starling.trainer import waiting_line
from starling.trainer.rendezvous_state import Arrival, Group, Member
from starling.trainer.waiting_line import WaitingLine


def arrival(name: str) -> Arrival:
    return Arrival(member=Member(id=name, address="127.0.0.1", master_port=1, pulse_port=2), left_round=-1)


def line(store: Store, name: str, round_: int = 0) -> WaitingLine:
    standing = WaitingLine(store, "r", name)
    standing.stand(round_, arrival(name))
    return standing


def names(arrivals: list[Arrival] | None) -> list[str] | None:
    return None if arrivals is None else [each.member.id for each in arrivals]


def test_the_first_brings_all_others_along(folder_store: Store) -> None:
    lines = {name: line(folder_store, name) for name in "bca"}
    assert names(lines["a"].others(Group())) == ["b", "c"]
    assert lines["b"].others(Group()) is None


def test_who_is_in_already_is_not_in_line(folder_store: Store) -> None:
    lines = {name: line(folder_store, name) for name in "abc"}
    inside = Group(members=(arrival("a").member,))
    assert names(lines["b"].others(inside)) == ["c"]


def test_another_rounds_line_is_another_line(folder_store: Store) -> None:
    early, late = line(folder_store, "a", 0), line(folder_store, "b", 1)
    assert names(late.others(Group(round=1))) == []
    early.stand(1, arrival("a"))
    assert names(early.others(Group(round=1))) == ["b"]
    assert [info.key for info in folder_store.list("r/arrivals/0/")] == []


def test_if_the_first_does_nothing_it_is_the_next_ones_turn(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    line(folder_store, "a")
    second = line(folder_store, "b")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert second.others(Group()) is None
    now += waiting_line.TURN + 2 * waiting_line.TURN_PER_NODE
    assert names(second.others(Group())) == ["a"]


def test_a_damaged_announcement_is_passed_over(folder_store: Store) -> None:
    standing = line(folder_store, "a")
    line(folder_store, "c")
    folder_store.put("r/arrivals/0/b", b"\x80garbage")
    assert names(standing.others(Group())) == ["c"]


def test_nothing_stays_of_who_withdraws(folder_store: Store) -> None:
    line(folder_store, "a").withdraw()
    assert list(folder_store.list("r/")) == []
