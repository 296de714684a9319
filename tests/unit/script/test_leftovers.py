"""What a script left is in the newest snapshot, or somebody says why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.errors import StoreUnavailable
from starling.infra.journal import read_events
from starling.infra.records import EventKind
from starling.trainer.control import Request
from starling.trainer.script import keeper as keeping
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.leftovers import COMMIT_SECONDS, Unkept, keep_leftovers
from starling.trainer.script.round import DONE, FAILURE, PEER_LOST, Round
from starling.trainer.script.telling import Teller
from starling.trainer.script.trust import Trust
from tests.support.script_rounds import FailingStore, Peers, job, round_of

WHOLE = Trust(trusted=True, reason="every process ended by itself")
TORN = Trust(trusted=False, reason="a.pt was being written when its process was killed")


class Ended:
    """Rank 0's node, after its script has ended."""

    def __init__(self, folder: Path) -> None:
        self.store, self.job = FailingStore(folder / "store"), job(folder)
        self.keeper = Keeper(self.store, self.job)
        self.teller = Teller(self.store, self.job, self.keeper.catalog)
        self.round: Round = round_of(self.job, self.store, Peers(), number=1)
        self.job.folder.mkdir(parents=True)
        (self.job.folder / "a.pt").write_text("weights")

    def keep(self, trust: Trust = WHOLE, ago: float = 0.0) -> Unkept | None:
        return keep_leftovers(self.round, self.keeper, self.teller, DONE, trust, time.monotonic() - ago)

    def dropped(self) -> list[str]:
        return [e.reason for e in read_events(self.store, "r") if e.kind is EventKind.FOLDER_DROPPED]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ended]:
    monkeypatch.setattr(keeping, "RETRY", 0.0)
    node = Ended(tmp_path)
    yield node
    node.round.words.close()


def test_what_is_whole_is_kept_once_the_store_takes_it(ended: Ended) -> None:
    ended.store.fails["upload"] = [StoreUnavailable("full"), StoreUnavailable("full")]
    assert ended.keep() is None
    assert ended.keeper.catalog.numbers() == [1]
    assert ended.keep() is None, "there is nothing new"
    assert ended.keeper.catalog.numbers() == [1]


def test_a_store_that_takes_nothing_for_long_fails_the_run(ended: Ended) -> None:
    ended.store.fails["upload"] = [StoreUnavailable("free some space there")]
    unkept = ended.keep(ago=COMMIT_SECONDS + 1)
    assert unkept is not None
    assert (unkept.cause, unkept.fatal) == (FAILURE, True)
    assert "free some space there" in unkept.reason


def test_a_node_without_the_time_leaves_it_to_the_others(ended: Ended) -> None:
    ended.round.control.ask(Request.LEAVE, deadline=time.time() + 0.5)
    ended.store.fails["upload"] = [StoreUnavailable("away")]
    unkept = ended.keep()
    assert unkept is not None
    assert (unkept.cause, unkept.fatal) == (PEER_LOST, False)


def test_a_node_that_was_cut_off_leaves_it_to_the_others(ended: Ended, tmp_path: Path) -> None:
    other = Keeper(ended.store, job(tmp_path / "other", node="r.1.0"))
    other.job.folder.mkdir(parents=True)
    (other.job.folder / "a.pt").write_text("later weights")
    other.job.work_dir.mkdir(parents=True)
    theirs = other.commit(other.look(), "interval", 2, copied=False).snapshot
    unkept = ended.keep()
    assert unkept is not None
    assert (unkept.cause, unkept.fatal) == (PEER_LOST, False)
    assert ended.keeper.catalog.newest() == theirs


def test_what_may_be_half_written_is_a_failure_that_may_be_tried_again(ended: Ended) -> None:
    assert ended.keep(TORN) == Unkept(reason=TORN.reason, cause=FAILURE, fatal=False)
    assert ended.keeper.catalog.numbers() == []
    (dropped,) = ended.dropped()
    assert TORN.reason in dropped


def test_an_empty_folder_is_nothing_lost(ended: Ended) -> None:
    (ended.job.folder / "a.pt").unlink()
    assert ended.keep(Trust(trusted=False, reason="the folder holds nothing")) is None
