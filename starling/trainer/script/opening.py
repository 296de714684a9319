"""The beginning of a script's round: every node's folder is made to hold the same snapshot before anything starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from torch.distributed.elastic.utils.distributed import get_free_port

from starling.infra.errors import ObjectCorrupt, ObjectNotFound, StoreUnavailable
from starling.infra.records import Record
from starling.infra.snapshots.catalog import Superseded
from starling.infra.snapshots.records import Snapshot
from starling.infra.snapshots.restore import DamagedFiles
from starling.trainer.script.keeper import RETRY, Keeper
from starling.trainer.script.round import DAMAGED, PEER_LOST, Round, RoundOver
from starling.trainer.script.telling import Teller
from starling.trainer.script.words import RoundEnd, RoundGo, RoundReady, RoundStart

POLL = 0.2
"""Seconds between two looks for a word of the other nodes."""

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class NothingWhole(Exception):
    """The run has snapshots, and this node can read none of them: its memory or disk may be what is broken."""


def open_round(this: Round, keeper: Keeper, teller: Teller) -> tuple[RoundStart, int | None]:
    """Returns what the round starts from, and the port at which the scripts meet (None: the one of the rendezvous).

    Raises RoundOver if the round ends before everybody is ready, NoRoom if this node's disk is too small, NothingWhole.
    """
    if this.leads:
        snapshot = _patiently(this, lambda: _lead(this, keeper, teller))
        start = RoundStart(
            snapshot=snapshot.number if snapshot else None,
            content=snapshot.content if snapshot else "",
            upload_seconds=snapshot.seconds if snapshot else 0.0,
        )
        if len(this.nodes) == 1:
            return start, None
        _patiently(this, lambda: this.words.say("start", start))
    else:
        start = _awaited(this, "start", RoundStart)
        _patiently(this, lambda: _follow(this, keeper, start))
    _patiently(this, lambda: this.words.say(f"ready/{this.rank}", RoundReady()))
    if this.leads:
        _await_everybody(this)
        # Chosen only now: while folders were being filled, somebody else may have taken the rendezvous' port.
        _patiently(this, lambda: this.words.say("go", RoundGo(port=get_free_port())))
    return start, _awaited(this, "go", RoundGo).port


def _lead(this: Round, keeper: Keeper, teller: Teller) -> Snapshot | None:
    """Fill rank 0's folder with the newest snapshot that is whole. To begin afresh if there are only others would be to
    lose the run."""
    while True:
        newest = keeper.stored(teller.passed_over)
        if keeper.outlived(newest):
            newest = _repeat(this, keeper, teller)
        if newest is None and (numbers := keeper.catalog.numbers()):
            raise NothingWhole(
                f"none of the {len(numbers)} snapshots of {keeper.job.run} can be read whole; "
                "they were left as they are"
            )
        try:
            downloaded = keeper.restore(newest)
        except DamagedFiles as error:
            assert newest is not None
            teller.passed_over(newest.number, str(error))
            continue  # with a damaged file the snapshot does not count any more
        log.info("the folder holds snapshot %s, %d bytes downloaded", newest and newest.number, downloaded)
        return newest


def _repeat(this: Round, keeper: Keeper, teller: Teller) -> Snapshot:
    try:
        commit = keeper.repeat(this.number)
    except Superseded as error:
        raise RoundOver(RoundEnd(cause=PEER_LOST, node=this.node)) from error
    teller.committed(commit)
    return commit.snapshot


def _follow(this: Round, keeper: Keeper, start: RoundStart) -> None:
    """Make this node's folder equal to rank 0's. Raises RoundOver if the snapshot turns out to be damaged."""
    try:
        snapshot = keeper.catalog.read(start.snapshot) if start.snapshot is not None else None
        downloaded = keeper.restore(snapshot)
    except (ObjectCorrupt, ObjectNotFound) as error:
        log.error("snapshot %s is damaged: %s", start.snapshot, error)
        damaged = tuple(sorted(error.sha256s)) if isinstance(error, DamagedFiles) else ()
        end = this.words.end(RoundEnd(cause=DAMAGED, node=this.node, damaged=damaged))
        raise RoundOver(end) from error
    log.info("the folder holds snapshot %s, %d bytes downloaded", start.snapshot, downloaded)


def _await_everybody(this: Round) -> None:
    while _patiently(this, lambda: this.words.count("ready")) < len(this.nodes):
        this.check()
        time.sleep(POLL)


def _awaited(this: Round, word: str, kind: type[R]) -> R:
    while (said := _patiently(this, lambda: this.words.hear(word, kind))) is None:
        this.check()
        time.sleep(POLL)
    return said


def _patiently(this: Round, action: Callable[[], T]) -> T:
    """Do something with the store; wait while it is away, as long as the round lasts."""
    while True:
        this.check()
        try:
            return action()
        except StoreUnavailable as error:
            log.warning("waiting for the store: %s", error)
            time.sleep(RETRY)
