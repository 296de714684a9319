"""A round begins with the same whole snapshot everywhere, and no node's bad reading costs the run one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.errors import NoRoom
from starling.infra.store.oserrors import store_error
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.opening import NothingWhole, open_round
from starling.trainer.script.round import DAMAGED, Round, RoundOver
from starling.trainer.script.telling import Teller
from starling.trainer.script.words import RoundStart
from tests.support.script_rounds import FailingStore, Peers, job, round_of


class Node:
    """One of a round's two nodes."""

    def __init__(self, folder: Path, store: FailingStore, rank: int) -> None:
        self.store = store
        self.keeper = Keeper(store, job(folder / f"node-{rank}", node=f"r.{rank}.0"))
        self.keeper.job.work_dir.mkdir(parents=True)
        self.teller = Teller(store, self.keeper.job, self.keeper.catalog)
        self.rounds: list[Round] = []

    def round(self, number: int) -> Round:
        """The round with this number, as this node sees it."""
        rank = int(self.keeper.job.node[2])
        self.rounds.append(round_of(self.keeper.job, self.store, Peers(), rank=rank, number=number))
        return self.rounds[-1]

    def save(self, content: str) -> None:
        self.keeper.job.folder.mkdir(parents=True, exist_ok=True)
        (self.keeper.job.folder / "a.pt").write_text(content)
        self.keeper.commit(self.keeper.look(), "interval", 0, copied=False)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    store = FailingStore(tmp_path / "store")
    both = [Node(tmp_path, store, rank) for rank in (0, 1)]
    yield both
    for node in both:
        for this in node.rounds:
            this.words.close()


def damage(node: Node) -> str:
    """Change a byte of the newest snapshot's file; returns its SHA-256."""
    newest = node.keeper.newest
    assert newest is not None
    (file,) = newest.files
    node.store.put(layout.snapshot_file("r", file.sha256), b"x" * file.size)
    return file.sha256


def start(number: int) -> RoundStart:
    return RoundStart(snapshot=number, content="", upload_seconds=0.0)


def test_what_a_follower_finds_damaged_rank_0_uploads_again(nodes: list[Node]) -> None:
    leader, follower = nodes
    leader.save("weights")
    sha256 = damage(leader)
    theirs = follower.round(1)
    theirs.words.say("start", start(1))
    with pytest.raises(RoundOver) as over:
        open_round(theirs, follower.keeper, follower.teller)
    assert (over.value.end.cause, over.value.end.damaged) == (DAMAGED, (sha256,))
    leader.keeper.distrust(over.value.end.damaged)
    alone = leader.round(2)
    alone.nodes = ("r.0.0",)
    opened, _ = open_round(alone, leader.keeper, leader.teller)
    assert opened.snapshot == 2
    theirs = follower.round(3)
    theirs.words.say("start", start(2))
    assert follower.keeper.restore(follower.keeper.catalog.read(2)) == len("weights")


def test_rank_0_goes_on_from_the_snapshot_before_a_damaged_one_and_deletes_nothing(nodes: list[Node]) -> None:
    leader, replacement = nodes[0], nodes[1]
    leader.save("older")
    leader.save("newer")
    damage(leader)
    alone = replacement.round(1)
    alone.rank, alone.nodes = 0, ("r.1.0",)
    opened, _ = open_round(alone, replacement.keeper, replacement.teller)
    assert opened.snapshot == 1
    assert (replacement.keeper.job.folder / "a.pt").read_text() == "older"
    for number in range(5):
        (replacement.keeper.job.folder / "a.pt").write_text(f"{number}")
        replacement.keeper.commit(replacement.keeper.look(), "interval", 1, copied=False)
    replacement.keeper.retire(1)
    assert replacement.keeper.catalog.numbers() == [1, 2, 3, 4, 5, 6, 7], "what it misread may be whole"


def test_a_node_without_room_says_so_instead_of_trying_for_ever(nodes: list[Node], tmp_path: Path) -> None:
    leader, follower = nodes
    leader.save("weights")
    full = OSError(28, "No space left on device")
    error = store_error("write", tmp_path, full)
    error.__cause__ = full
    follower.store.fails["download"] = [error]
    theirs = follower.round(1)
    theirs.words.say("start", start(1))
    with pytest.raises(NoRoom):
        open_round(theirs, follower.keeper, follower.teller)


def test_a_leader_that_can_read_no_snapshot_does_not_begin_afresh(nodes: list[Node], tmp_path: Path) -> None:
    leader, _ = nodes
    leader.save("weights")
    sha256 = damage(leader)
    newcomer = Node(tmp_path / "new", leader.store, 0)
    alone = newcomer.round(1)
    alone.nodes = ("r.0.0",)
    with pytest.raises(NothingWhole, match="none of the 1 snapshots"):
        open_round(alone, newcomer.keeper, newcomer.teller)
    alone.words.close()
    assert leader.store.stat(layout.snapshot_file("r", sha256)).size == len("weights")
