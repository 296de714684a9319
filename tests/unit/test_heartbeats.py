"""Silence is judged by one's own looks: who was not looked at is not dead."""

from __future__ import annotations

import time

from starling.infra.store import Store
from starling.trainer.heartbeats import FEW, Heartbeats, Silence


def test_a_beat_that_stays_the_same_for_long_enough_is_silence() -> None:
    silence = Silence(lapse=15.0)
    silence.observe({"a": "1", "b": "1"}, now=100.0)
    silence.observe({"a": "1", "b": "2"}, now=114.9)
    assert silence.lapsed() == frozenset()
    silence.observe({"a": "1", "b": "2"}, now=115.0)
    assert silence.lapsed() == {"a"}
    silence.observe({"a": "2"}, now=120.0)
    assert silence.lapsed() == frozenset(), "it has come back"


def test_not_looking_makes_nobody_dead() -> None:
    silence = Silence(lapse=15.0)
    silence.observe({"a": "1"}, now=100.0)
    silence.observe({"b": "1"}, now=1000.0)
    assert silence.lapsed() == frozenset()


def test_neighbours_of_a_large_group_are_read_one_by_one_and_the_missing_passed_over(folder_store: Store) -> None:
    one = Heartbeats(folder_store, "r", "one", beat=0.0, missed=0)
    two = Heartbeats(folder_store, "r", "two", beat=0.0, missed=0)
    two.beat()
    one.watch(["two", "never-came"], FEW + 1)
    assert one.lapsed() == {"two"}, "with no time to lapse, whoever was seen has"
    two.remove()
    assert list(folder_store.list("r/")) == []


def test_who_had_lapsed_and_beats_again_lives_though_no_neighbour_any_more(folder_store: Store) -> None:
    one = Heartbeats(folder_store, "r", "one", beat=0.02, missed=1)
    two = Heartbeats(folder_store, "r", "two", beat=0.02, missed=1)
    two.beat()
    one.watch(["two"], FEW + 1)
    time.sleep(0.03)
    one.watch(["two"], FEW + 1)
    assert one.lapsed() == {"two"}
    two.beat()
    one.watch(["another"], FEW + 1)
    assert one.lapsed() == frozenset()
