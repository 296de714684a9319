"""How many nodes get into one object without fighting over it.

Whoever has lost the race for the group's object, or knows that many will run it, announces itself in an object of its
own (no contention) and looks who else has. The first in line, by id, then brings all of them along in one write. The
others only look whether they are in; should the first not get there, it is the next one's turn after a while, and so
on: nobody in particular has to survive.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from starling.infra.errors import ObjectNotFound
from starling.infra.store import Store
from starling.trainer.rendezvous_state import Arrival, Group

log = logging.getLogger(__name__)

TURN, TURN_PER_NODE = 0.2, 0.003
"""Seconds each one in line has before the next one tries; bringing many along takes longer."""
STEP = 0.01
"""Seconds between two in line when all look anew."""
READERS = 16
"""Announcements read at the same time."""


class WaitingLine:
    """One node's place among those who want to be written into the group. Methods raise StoreError."""

    def __init__(self, store: Store, prefix: str, member_id: str) -> None:
        self._store = store
        self._prefix = prefix
        self._me = member_id
        self._round: int | None = None
        self._since = 0.0
        self._due = 0.0
        self._place = 0
        self._seen: tuple[int, int] | None = None
        self.length = 0
        """How many were in line when this node last looked."""

    def stand(self, round_: int, arrival: Arrival) -> None:
        """Announce that this node wants to be in a round; it stays announced until it withdraws."""
        if self._round == round_:
            return
        self.withdraw()
        self._store.put(f"{self._folder(round_)}{self._me}", arrival.to_bytes())
        self._round, self._seen, self._place = round_, None, 0

    def others(self, group: Group) -> list[Arrival] | None:
        """All others in line who are not in the group yet, if it is this node's turn to bring them along."""
        assert self._round is not None
        now = time.monotonic()
        inside = {member.id for member in (group.waiting if group.formed else group.members)}
        moved = self._seen != (group.round, len(inside))
        if moved:  # everybody's turn begins anew; those in front look first, so that most never have to
            self._seen, self._since = (group.round, len(inside)), now
            self._due = now + self._place * STEP
        if now < self._due:
            return None
        folder = self._folder(self._round)
        line = [info.key.removeprefix(folder) for info in self._store.list(folder)]
        line = [member_id for member_id in line if member_id not in inside]
        self._place = line.index(self._me) if self._me in line else len(line)
        self.length = len(line)
        self._due = self._since + self._place * (TURN + TURN_PER_NODE * len(line))
        if now < self._due:
            return None
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(self._read, (folder + member_id for member_id in line if member_id != self._me))
            return [arrival for arrival in read if arrival is not None]

    def withdraw(self) -> None:
        """Once in the group, or going."""
        if self._round is not None:
            self._store.delete(f"{self._folder(self._round)}{self._me}")
            self._round = None

    def _read(self, key: str) -> Arrival | None:
        try:
            return Arrival.from_bytes(self._store.get(key).data)
        except ObjectNotFound:
            return None
        except ValueError as error:
            log.warning("%s is passed over: %s", key, error)
            return None

    def _folder(self, round_: int) -> str:
        return f"{self._prefix}/arrivals/{round_}/"
