"""A run is done when its verdict says so, not when its scripts have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.errors import StoreUnavailable
from starling.infra.records import RunState, Verdict
from starling.trainer.control import Request
from starling.trainer.script import conclusion
from starling.trainer.script.conclusion import await_result, give_result
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.round import DONE, FAILURE, LEAVE, PEER_LOST, STOP, Round
from starling.trainer.script.telling import Teller
from starling.trainer.script.words import RoundResult
from tests.support.script_rounds import FailingStore, Peers, job, round_of


class OneNode:
    """A node in a round."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.store, self.peers = FailingStore(folder / "store"), Peers()
        self.job = job(folder)
        self.round: Round = round_of(self.job, self.store, self.peers, rank=rank)
        self.teller = Teller(self.store, self.job, Keeper(self.store, self.job).catalog)

    def verdict(self) -> Verdict:
        return Verdict.from_bytes(self.store.get(layout.verdict("r", 0)).data)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conclusion, "POLL", 0.0)
    monkeypatch.setattr(conclusion, "RETRY", 0.0)


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[OneNode]:
    node = OneNode(tmp_path, rank=1)
    yield node
    node.round.words.close()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[OneNode]:
    node = OneNode(tmp_path, rank=0)
    yield node
    node.round.words.close()


@pytest.mark.parametrize(("cause", "counts_as"), [(DONE, PEER_LOST), (STOP, STOP), (LEAVE, LEAVE)])
def test_without_the_word_of_a_lost_rank_0_no_run_is_done(follower: OneNode, cause: str, counts_as: str) -> None:
    follower.peers.lost = True
    assert await_result(follower.round, cause) == counts_as


def test_the_word_of_a_rank_0_that_went_after_saying_it_counts(follower: OneNode) -> None:
    follower.peers.lost = True
    follower.round.words.say("result", RoundResult(cause=DONE))
    assert await_result(follower.round, DONE) == DONE


def test_what_rank_0_makes_of_the_end_counts(follower: OneNode) -> None:
    follower.round.words.say("result", RoundResult(cause=FAILURE))
    assert await_result(follower.round, DONE) == FAILURE


def test_a_living_rank_0_is_waited_for_however_long_it_takes(
    follower: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    looks = iter(range(10_000))

    def said_after_a_while() -> None:
        if next(looks) == 5:
            follower.round.words.say("result", RoundResult(cause=DONE))

    follower.peers.asked = said_after_a_while
    # Each look at the clock is an hour later.
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600.0 * next(looks))
    assert await_result(follower.round, DONE) == DONE


def test_a_node_that_is_about_to_be_taken_waits_no_longer(follower: OneNode) -> None:
    follower.round.control.ask(Request.LEAVE, deadline=time.time() + 0.5)
    assert await_result(follower.round, DONE) == PEER_LOST


def test_a_verdict_is_given_when_the_store_is_back(leader: OneNode) -> None:
    leader.store.fails["create"] = [StoreUnavailable("away"), StoreUnavailable("away")]
    assert give_result(leader.round, leader.teller, None, DONE) == DONE
    assert leader.verdict().state is RunState.DONE
    assert leader.round.words.hear("result", RoundResult) == RoundResult(cause=DONE)


def test_a_run_is_not_done_if_its_node_is_taken_before_it_could_say_so(leader: OneNode) -> None:
    leader.round.control.ask(Request.LEAVE, deadline=time.time() + 0.5)
    leader.store.fails["create"] = [StoreUnavailable("away")] * 3
    assert give_result(leader.round, leader.teller, None, DONE) == PEER_LOST
