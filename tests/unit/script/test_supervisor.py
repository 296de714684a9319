"""What the end of a round means for a script's node: the next round, or an exit code. No script runs here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from starling.infra import layout
from starling.infra.errors import NoRoom, ObjectNotFound, StoreUnavailable
from starling.infra.journal import read_events
from starling.infra.records import EventKind, Failure, RunState, Verdict
from starling.infra.supervision import EXIT_UNFIT, EXIT_VERDICT, UNFIT
from starling.trainer.failures import Judgement
from starling.trainer.rendezvous import StoreRendezvous
from starling.trainer.script import conclusion
from starling.trainer.script import supervisor as supervising
from starling.trainer.script.round import DAMAGED, DONE, FAILURE, LEAVE, Outcome, Round
from starling.trainer.script.supervisor import ScriptSupervisor
from starling.trainer.script.trust import Ending
from starling.trainer.script.words import RoundEnd, RoundResult, RoundStart
from tests.support.script_rounds import FailingStore, Peers, job, round_of

WELL = Ending(asked=False, exit_codes=(0,), quiet=9.0, written_before=None, written_last=None, changed=None)


class Node:
    """A supervisor between two rounds."""

    def __init__(self, folder: Path) -> None:
        self.store, self.peers, self.job = FailingStore(folder / "store"), Peers(), job(folder)
        self.job.work_dir.mkdir(parents=True)
        self.supervisor = ScriptSupervisor(self.job, self.store, cast(StoreRendezvous, self.peers))
        self.rounds: list[Round] = []

    def round(self, rank: int) -> Round:
        self.rounds.append(round_of(self.job, self.store, self.peers, rank=rank, number=len(self.rounds)))
        return self.rounds[-1]

    def conclude(self, rank: int, cause: str, outcome: str | None = None, **known: Any) -> int | None:
        """A round ended with the word `cause`, by this node, and counts as `outcome`."""
        end = RoundEnd(cause=cause, node=self.job.node, damaged=known.pop("damaged", ()))
        this = known.pop("this", None) or self.round(rank)
        return self.supervisor._conclude(this, Outcome(end=end, cause=outcome or cause, **known))

    def failure(self, *, fatal: bool = False) -> Failure:
        number = len(self.rounds)
        return Failure(
            at=time.time(), node=self.job.node, rank=0, round=number, step=0, error="e", fatal=fatal, content="c"
        )

    def verdict(self) -> Verdict | None:
        try:
            return Verdict.from_bytes(self.store.get(layout.verdict("r", 0)).data)
        except ObjectNotFound:
            return None

    def unfit(self) -> str:
        return (self.job.work_dir / UNFIT).read_text()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(conclusion, "PEER_SECONDS", 0.0)
    node = Node(tmp_path)
    yield node
    for this in node.rounds:
        this.words.close()


def test_a_follower_whose_rank_0_died_before_the_verdict_goes_on(node: Node) -> None:
    node.peers.lost = True
    assert node.conclude(1, DONE) is None
    assert not node.peers.closed


def test_a_follower_goes_when_rank_0_has_said_that_the_run_is_done(node: Node) -> None:
    this = node.round(1)
    this.words.say("result", RoundResult(cause=DONE))
    assert node.conclude(1, DONE, this=this) == EXIT_VERDICT
    assert node.peers.closed


def test_a_finished_script_whose_files_are_lost_is_not_done(node: Node) -> None:
    failure = node.failure(fatal=True)
    assert node.conclude(0, DONE, FAILURE, failure=failure) == EXIT_VERDICT
    verdict = node.verdict()
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (RunState.FAILED, "e")
    assert node.rounds[0].words.hear("result", RoundResult) == RoundResult(cause=FAILURE)


def test_a_failure_is_told_when_the_store_is_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conclusion, "RETRY", 0.0)
    failure = node.failure(fatal=True)
    this = node.round(0)
    node.store.fails["create"] = [StoreUnavailable("full")] * 4
    assert node.conclude(0, FAILURE, this=this, failure=failure) == EXIT_VERDICT
    assert node.supervisor._teller.failed(failure) is Judgement.HOPELESS, "saying it again changes nothing"
    assert node.verdict() is not None
    assert not node.store.fails["create"]
    told = [event.kind for event in read_events(node.store, "r")]
    assert told.count(EventKind.WORKER_FAILED) == 1


def test_a_finished_script_that_may_be_torn_runs_again(node: Node) -> None:
    assert node.conclude(0, DONE, FAILURE, failure=node.failure()) is None
    assert node.verdict() is None
    assert not node.peers.closed


def test_a_node_that_alone_fails_again_and_again_is_unfit(node: Node) -> None:
    for _ in range(2):
        assert node.conclude(0, FAILURE, failure=node.failure()) is None
    assert node.conclude(0, FAILURE, failure=node.failure()) == EXIT_UNFIT
    assert "3 rounds in a row failed on this node" in node.unfit()
    assert node.verdict() is None
    assert not node.peers.closed


def test_who_finds_files_damaged_twice_is_itself_at_fault(node: Node) -> None:
    for expected in (None, EXIT_UNFIT):
        this = node.round(1)
        this.words.say("result", RoundResult(cause=DAMAGED))
        assert node.conclude(1, DAMAGED, this=this) == expected
    assert "damaged" in node.unfit()


def test_rank_0_distrusts_what_a_follower_names(node: Node) -> None:
    node.job.folder.mkdir(parents=True)
    (node.job.folder / "a.pt").write_text("weights")
    keeper = node.supervisor._keeper
    (file,) = keeper.commit(keeper.look(), "interval", 0, copied=False).snapshot.files
    this = node.round(0)
    end = RoundEnd(cause=DAMAGED, node="r.1.0", damaged=(file.sha256,))
    assert node.supervisor._conclude(this, Outcome(end=end, cause=DAMAGED)) is None
    assert keeper.stored(lambda number, reason: None) is None
    assert keeper.outlived(None), "its own folder is whole"


def test_a_node_whose_disk_is_too_small_is_unfit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise NoRoom("out cannot hold the snapshot")

    monkeypatch.setattr(node.supervisor, "_this_round", lambda: node.round(1))
    monkeypatch.setattr(
        node.supervisor, "_worker_group", SimpleNamespace(workers=[SimpleNamespace(global_rank=0, world_size=2)])
    )
    monkeypatch.setattr(supervising, "open_round", no_room)
    assert node.supervisor._one_round() == EXIT_UNFIT
    assert node.unfit() == "out cannot hold the snapshot"


class Watched:
    """Stands for a snapshotter, a script's processes and its progress; writes down what is done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.seen = None

    def exit_codes(self) -> dict[int, int | None]:
        return {0: 0}

    def rest(self) -> float:
        return 1.0

    def halt(self) -> None:
        self.done.append("halt")

    def join(self) -> None:
        self.done.append("join")


def run_scripts(node: Node, monkeypatch: pytest.MonkeyPatch, end: RoundEnd, ending: Ending) -> tuple[Watched, Outcome]:
    watched, this = Watched(), node.round(0)
    monkeypatch.setattr(node.supervisor, "_start_scripts", lambda *_: watched)
    monkeypatch.setattr(node.supervisor, "_snapshotter", lambda *_: watched)
    monkeypatch.setattr(node.supervisor, "_watch", lambda *_: end)

    def ended(*given: Any) -> Ending:
        watched.done.append("end" if given[2] is None else "end in time")
        return ending

    monkeypatch.setattr(supervising, "end_processes", ended)
    start = RoundStart(snapshot=None, content="", upload_seconds=0.0)
    return watched, node.supervisor._run_scripts(this, start, None, cast(Any, SimpleNamespace()))


def test_scripts_are_asked_to_end_while_an_upload_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, _ = run_scripts(node, monkeypatch, RoundEnd(cause=LEAVE, node="r.1.0", within=20.0), WELL)
    assert watched.done == ["halt", "end in time", "join"]


def test_a_finished_script_is_done_only_if_its_folder_is_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.job.folder.mkdir(parents=True)
    (node.job.folder / "a.pt").write_text("half")
    end = RoundEnd(cause=DONE, node=node.job.node)
    torn = Ending(asked=False, exit_codes=(0,), quiet=0, written_before=None, written_last="a.pt", changed=None)
    _, outcome = run_scripts(node, monkeypatch, end, torn)
    assert outcome.cause == FAILURE
    assert outcome.failure is not None
    assert "the script has finished, but its last files could not be stored: a.pt was being" in outcome.failure.error
    _, outcome = run_scripts(node, monkeypatch, end, WELL)
    assert (outcome.cause, outcome.failure) == (DONE, None)
