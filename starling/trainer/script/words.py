"""What the nodes of one round tell each other through the store: small objects, each created once."""

from __future__ import annotations

import logging
import threading
from typing import TypeVar

from starling.infra import layout
from starling.infra.errors import ObjectExists, ObjectNotFound, StoreError
from starling.infra.records import Record
from starling.infra.store import Store

LISTEN = 0.5
"""Seconds between two looks for the word that ends a round."""

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)


class RoundStart(Record):
    """The first word of a script's round, by its rank 0: what all nodes' folders are to hold."""

    snapshot: int | None
    """None: the folder is empty."""
    content: str
    """`Snapshot.content`; empty without a snapshot."""
    upload_seconds: float
    """How long that snapshot took to make: a guess for the next one."""


class RoundReady(Record):
    """This node's folder holds what it should."""


class RoundGo(Record):
    """All folders are ready: the scripts start."""

    port: int
    """Free at rank 0's address: where the scripts meet (MASTER_PORT)."""


class RoundDone(Record):
    """All processes of this node's script have ended with exit code 0."""


class RoundEnd(Record):
    """A script's round ends for all its nodes; created once, by whoever has the first reason."""

    cause: str
    node: str
    within: float | None = None
    """Seconds, from when this is read, until the node that asked is taken. A duration: no clocks are compared."""
    damaged: tuple[str, ...] = ()
    """Files (SHA-256) that this node could not get out of the store as they were written."""


class RoundResult(Record):
    """The last word of a round, by its rank 0: what was to be kept is, and nobody need stay for it any longer."""

    cause: str
    """What the round counts as: as it ended, but as a failure if what a finished script left could not be kept."""


class Words:
    """The words of one round. `say` and `hear` raise StoreError; `ended` never waits for the store."""

    def __init__(self, store: Store, run: str, incarnation: int, round_number: int) -> None:
        self._store = store
        self._of = (run, incarnation, round_number)
        self._end: RoundEnd | None = None
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="round-words", daemon=True)
        self._listener.start()

    def say(self, word: str, record: Record) -> bool:
        """False if somebody has said it before."""
        try:
            self._store.create(self._key(word), record.to_bytes())
        except ObjectExists:
            return False
        return True

    def hear(self, word: str, kind: type[R]) -> R | None:
        try:
            return kind.from_bytes(self._store.get(self._key(word)).data)
        except ObjectNotFound:
            return None

    def count(self, word: str) -> int:
        """How many nodes have said `<word>/<rank>`."""
        return sum(1 for _ in self._store.list(self._key(word) + "/"))

    def end(self, end: RoundEnd) -> RoundEnd:
        """End the round; returns the word that counts, which is the first one."""
        if self._end is None:
            said = self.say("end", end)
            self._end = end if said else self.hear("end", RoundEnd)
        return self._end or end

    @property
    def ended(self) -> RoundEnd | None:
        """The word that ends the round, as soon as it was heard."""
        return self._end

    def close(self) -> None:
        self._over.set()
        self._listener.join()

    def _listen(self) -> None:
        while self._end is None and not self._over.wait(LISTEN):
            try:
                self._end = self._end or self.hear("end", RoundEnd)
            except StoreError as error:
                log.warning("the words of this round cannot be read, trying again: %s", error)

    def _key(self, word: str) -> str:
        return layout.round_word(*self._of, word)
