"""One round of a script, as one node sees it: who takes part, what was said, and what ends it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from starling.infra.errors import StoreError
from starling.infra.records import Failure
from starling.trainer.control import Control, Request
from starling.trainer.rendezvous import StoreRendezvous
from starling.trainer.script.words import RoundEnd, Words

DONE, STOP, LEAVE, JOIN, DAMAGED = "done", "stop", "leave", "join", "damaged"
FAILURE, PEER_LOST = "failure", "peer-lost"
ASKED = (STOP, LEAVE, JOIN)
"""Causes for which running scripts are asked to end."""
BROKEN = (FAILURE, PEER_LOST)
"""Causes after which nobody waits for rank 0's last word."""

LAST_SECOND = 1.0
"""Seconds before this node is taken from which on it waits for nothing any more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a round ended on this node."""

    end: RoundEnd
    """The word that ended it."""
    cause: str
    """What it counts as: the cause that was said, unless this node knows better."""
    failure: Failure | None = None
    """What this node has to answer for."""


class RoundOver(Exception):
    """The round ended before its scripts had started."""

    def __init__(self, end: RoundEnd) -> None:
        super().__init__(end.cause)
        self.end = end


@dataclass(kw_only=True, slots=True)
class Round:
    number: int
    node: str
    rank: int
    """Of this node."""
    nodes: tuple[str, ...]
    """In rank order."""
    words: Words
    control: Control
    rendezvous: StoreRendezvous

    @property
    def leads(self) -> bool:
        """Whether this node's folder is the one that counts."""
        return self.rank == 0

    def is_lost(self) -> bool:
        return self.rendezvous.round_is_over() or bool(self.rendezvous.lost_members())

    def ended(self) -> RoundEnd | None:
        """Why this round is over, if it is. Passes on what this node was asked by its agent."""
        if (end := self.words.ended) is not None:
            return end
        if self.control.is_asked(Request.STOP):
            return self.end(STOP)
        if self.control.is_asked(Request.LEAVE):
            return self.end(LEAVE, self.seconds_left())
        if self.is_lost():
            return RoundEnd(cause=PEER_LOST, node=self.node)
        return None

    def end(self, cause: str, within: float | None = None) -> RoundEnd | None:
        """End the round for everybody; returns the word that counts, None while the store does not take any."""
        try:
            return self.words.end(RoundEnd(cause=cause, node=self.node, within=within))
        except StoreError as error:
            log.warning("the others cannot be told that this round ends (%s), trying again: %s", cause, error)
            return None

    def seconds_left(self) -> float | None:
        """Until this node is taken, if it is to be, and that is known."""
        deadline = self.control.deadline(Request.LEAVE)
        return None if deadline is None else max(0.0, deadline - time.time())

    def time_is_over(self) -> bool:
        """Whether this node is about to be taken."""
        left = self.seconds_left()
        return left is not None and left <= LAST_SECOND

    def check(self) -> None:
        """Raises RoundOver."""
        if (end := self.ended()) is not None:
            raise RoundOver(end)
