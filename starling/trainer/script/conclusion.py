"""The last words of a script's round: rank 0 says that what counts is kept, and nobody goes before that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from starling.infra.errors import StoreError
from starling.infra.snapshots.records import Snapshot
from starling.trainer.script.keeper import RETRY
from starling.trainer.script.round import DONE, PEER_LOST, STOP, Round
from starling.trainer.script.telling import Teller
from starling.trainer.script.words import RoundResult

POLL = 0.2
"""Seconds between two looks for a word of rank 0, or a sign of a peer's death."""
PEER_SECONDS = 10.0
"""How long after a script has failed a peer may prove to be dead, which was then the reason."""

log = logging.getLogger(__name__)

T = TypeVar("T")


def peer_is_lost(this: Round) -> bool:
    """Whether a script failed because a peer died, which may show only a little later."""
    until = time.monotonic() + (PEER_SECONDS if len(this.nodes) > 1 else 0)
    while time.monotonic() < until and not this.rendezvous.lost_members():
        time.sleep(POLL)
    return bool(this.rendezvous.lost_members())


def tell(this: Round, telling: Callable[[], T]) -> T | None:
    """Say something to the store that must not be lost, again and again for as long as this node has; None: in vain."""
    while True:
        try:
            return telling()
        except StoreError as error:
            log.warning("the end of this round cannot be told, trying again: %s", error)
        if this.time_is_over():
            return None
        time.sleep(RETRY)


def give_result(this: Round, teller: Teller, newest: Snapshot | None, cause: str) -> str:
    """Rank 0's last word, and the verdict if this is the end of the run: whoever has to leave may leave. Returns what
    the round counts as."""

    def say() -> str:
        if cause == DONE:
            teller.done(newest)
        elif cause == STOP:
            teller.stopped(newest)
        if len(this.nodes) > 1:
            this.words.say("result", RoundResult(cause=cause))
        return cause

    return tell(this, say) or _untold(cause)


def await_result(this: Round, cause: str) -> str:
    """Not to leave, or to form the next round, before rank 0 has committed what counts, unless it is lost or this
    node's time is over. Returns what the round counts as."""
    while not this.time_is_over():
        lost = this.is_lost()  # before the look for its last word: it may well have gone after saying it
        try:
            if (result := this.words.hear("result", RoundResult)) is not None:
                return result.cause
        except StoreError as error:
            log.warning("rank 0's last word cannot be read, trying again: %s", error)
        if lost:
            break
        time.sleep(POLL)
    return _untold(cause)


def _untold(cause: str) -> str:
    """A run is done only once its verdict says so: until then whoever is left goes on from the newest snapshot. The
    verdict on a stopped run is the controller's if nobody else gives it."""
    return PEER_LOST if cause == DONE else cause
