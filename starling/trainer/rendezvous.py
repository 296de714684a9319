"""A rendezvous for TorchElastic that no machine has to survive for: its state is one object in a store.

Usable alone: `torchrun --rdzv-backend=starling --rdzv-endpoint=<folder or s3://bucket/prefix> --rdzv-id=<id> ...`
(see docs/rendezvous.md). It implements TorchElastic's public RendezvousHandler; nothing is pickled.

Store layout under the rendezvous' prefix: `group.json` (conditional writes only), `beats/<member>` and
`arrivals/<round>/<member>` (one writer each), `keys/` (TorchElastic's own bootstrap keys, one folder a round).
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)
from torch.distributed.elastic.utils.distributed import get_free_port

from starling.infra.errors import StoreError, StoreUnavailable
from starling.infra.store import Store
from starling.trainer.group_object import GroupObject
from starling.trainer.heartbeats import Heartbeats
from starling.trainer.key_store import KeyStore
from starling.trainer.pulse import Pulse, probe
from starling.trainer.rendezvous_state import Arrival, Group, Member, Standing, arrive, depart
from starling.trainer.waiting_line import WaitingLine

log = logging.getLogger(__name__)


NEIGHBOURS = 4
"""Members whose pulse each member feels while training runs; who refuses makes room for the next."""
CROWD = 8
"""Members of a group in which everybody may do everything; in larger ones they take turns."""
MANY_LOOKS = 30
"""So many looks at a forming group take longer than forming does."""
READERS = 32
"""Members who look at the group at their full pace; more than these look more seldom, so that the store is asked
about as often as by so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a rendezvous behaves; durations in seconds."""

    least: int
    most: int
    join_timeout: float = 600.0
    """How long `next_rendezvous` tries."""
    window: float = 3.0
    """How long a sufficient first group waits for more nodes. Later rounds wait only for nodes that are on the way."""
    poll: float = 0.1
    """Longest pause between two looks at the group while it forms; the first ones follow closely."""
    admission_poll: float = 0.25
    """The same for a node that waits to be let in."""
    watch: float = 0.5
    """Pause between two looks at the group while training runs."""
    beat: float = 5.0
    """Pause between heartbeats. They decide only where no proof of death is to be had."""
    missed_beats: int = 3


class RendezvousCancelled(RendezvousError):
    """This node was asked to go before a round formed."""


class StoreRendezvous(RendezvousHandler):
    """One node's handle on the group. `next_rendezvous` is called from one thread."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        run_id: str,
        address: str,
        settings: Settings,
        *,
        label: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._object = GroupObject(store, f"{self._prefix}/group.json")
        self._run_id = run_id
        self._settings = settings
        self._cancelled = cancelled
        member_id = f"{address}-{secrets.token_hex(6)}"
        self._pulse = Pulse(member_id, address)
        self._me = Member(id=member_id, address=address, master_port=0, pulse_port=self._pulse.port, label=label)
        self._line = WaitingLine(store, self._prefix, member_id)
        self._heartbeats = Heartbeats(store, self._prefix, member_id, beat=settings.beat, missed=settings.missed_beats)
        self._group = Group()
        self._round = -1
        self._formed_members: tuple[Member, ...] = ()
        self._refusing: frozenset[str] = frozenset()
        self._sufficient: tuple[int, float] | None = None
        self._lost_races = 0
        self._looks = 0
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def round(self) -> int:
        """The round this node was last formed in."""
        return self._round

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of that round, in rank order."""
        return self._formed_members

    def get_backend(self) -> str:
        return "starling"

    @property
    def use_agent_store(self) -> bool:
        """Training processes bootstrap over TCP between themselves, not over the store."""
        return False

    def get_run_id(self) -> str:
        return self._run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """Form the next round with whoever is there.

        Raises:
            RendezvousClosedError: the rendezvous was closed.
            RendezvousTimeoutError: no round formed in time.
            RendezvousCancelled: this node was asked to go while it waited.
        """
        self._start_watching()
        self._me = replace(self._me, master_port=get_free_port())
        group = self._form()
        rank = group.rank_of(self._me.id)
        assert rank is not None
        self._group, self._round, self._formed_members = group, group.round, group.members
        self._me = replace(self._me, seniority=group.members[rank].seniority)
        log.info("round %d formed: rank %d of %d", group.round, rank, len(group.members))
        leader = group.members[0]
        keys = KeyStore(self._store, f"{self._prefix}/keys/{group.round}")
        info = RendezvousStoreInfo(master_addr=leader.address, master_port=leader.master_port)
        return RendezvousInfo(keys, rank, len(group.members), info)

    def num_nodes_waiting(self) -> int:
        """How many nodes have a reason to wait for ours to come and form a new round: newcomers to let in, members
        that have gone ahead, and members that are dead. TorchElastic restarts its workers if there are any."""
        group = self._group
        if group.round < self._round:
            return 0
        if self.round_is_over():
            return max(1, len(group.members))
        return len(group.waiting) + len(self.lost_members())

    def round_is_over(self) -> bool:
        """Whether some member of our round has gone on to form the next one."""
        return self._group.round > self._round

    def lost_members(self) -> frozenset[str]:
        """Members of our round that are dead, as far as this node can tell."""
        dead = self._heartbeats.lapsed() | self._refusing
        return frozenset(m.id for m in self._formed_members if m.id in dead and m.id != self._me.id)

    def is_closed(self) -> bool:
        return self._group.closed or self._read()[0].closed

    def set_closed(self) -> None:
        """End the rendezvous for everybody, for good."""
        self._update(lambda group: replace(group, closed=True))

    def vanish(self) -> None:
        """Stop like a process that dies: the pulse refuses, the store is not told."""
        self._stop_watching()
        self._pulse.close()

    def leave(self) -> None:
        """Go for good, without closing the rendezvous for the others."""
        self.vanish()
        self._line.withdraw()
        self._update(lambda group: depart(group, self._me.id))
        self._heartbeats.remove()

    def shutdown(self) -> bool:
        """TorchElastic's end of a job: close the rendezvous for everybody and leave."""
        try:
            self.set_closed()
            self.leave()
        except StoreError as error:
            log.warning("the rendezvous could not be closed: %s", error)
            return False
        return True

    def _form(self) -> Group:
        """Look at the group until a round has formed; a store that is away for a while only delays it."""
        deadline = time.monotonic() + self._settings.join_timeout
        self._sufficient = None
        self._lost_races = self._looks = 0
        while time.monotonic() < deadline:
            if self._cancelled():
                raise RendezvousCancelled(f"asked to go while waiting for a round of {self._run_id}")
            try:
                formed, pause = self._try_to_form()
            except StoreUnavailable as error:
                log.warning("the rendezvous cannot reach its store, trying again: %s", error)
                formed, pause = None, self._settings.watch
            if formed is not None:
                return formed
            time.sleep(pause)
        self._line.withdraw()
        self._update(lambda group: depart(group, self._me.id))
        raise RendezvousTimeoutError(f"no round formed within {self._settings.join_timeout:.0f} s")

    def _try_to_form(self) -> tuple[Group | None, float]:
        """Do what is to be done now; the round if it has formed, and seconds until the next look."""
        group, version = self._read()
        self._looks += 1
        alone, standing = self._arrive(group, frozenset(), window_over=False)
        if standing is Standing.CLOSED:
            raise RendezvousClosedError(f"the rendezvous {self._run_id} is closed")
        if standing is Standing.FORMED and alone == group:
            return group, 0.0
        inside = alone == group or group.gathers(self._me.id)
        others = self._brought_along(group, inside)
        if others is None:
            return None, self._pause(group, standing)
        dead = self._dead(group)
        new, standing = self._arrive(group, dead, window_over=self._window_is_over(group), others=others)
        if new != group and not self._object.write(new, version):
            self._lost_races += 1
            return None, random.uniform(0, 0.05)  # losers of a race look again soon, at different times
        return new if standing is Standing.FORMED else None, self._pause(new, standing)

    def _arrive(
        self, group: Group, dead: frozenset[str], *, window_over: bool, others: list[Arrival] | None = None
    ) -> tuple[Group, Standing]:
        arrival, settings = Arrival(member=self._me, left_round=self._round), self._settings
        return arrive(
            group,
            arrival,
            dead,
            least=settings.least,
            most=settings.most,
            window_over=window_over,
            others=others or (),
        )

    def _brought_along(self, group: Group, inside: bool) -> list[Arrival] | None:
        """Whom this node should bring into the group when it writes; None if it should not write now, but somebody
        else: among many only one in line writes, and only the first living one of those inside."""
        if inside:
            crowded = not group.formed and _size(group) > CROWD
            return [] if not crowded or self._is_first_living(group) else None
        if self._lost_races < 2 and _size(group) <= CROWD:
            return []
        self._line.stand(group.round + int(group.formed), Arrival(member=self._me, left_round=self._round))
        return self._line.others(group)

    def _is_first_living(self, group: Group) -> bool:
        lapsed = self._silent()
        for member in group.members:
            if member.id == self._me.id:
                return True
            if member.id not in lapsed and not probe([member]):
                return False
        return False

    def _pause(self, group: Group, standing: Standing) -> float:
        """Short at first, for whoever comes back with others; longer the longer it takes, and the more there are."""
        waits = standing in (Standing.WAITING, Standing.SPARE)
        longest = self._settings.admission_poll if waits else self._settings.poll
        pause = min(longest, 0.02 * 1.5 ** min(self._looks, 20)) * random.uniform(0.5, 1.0)
        return pause * max(1.0, max(_size(group), self._line.length) / READERS)

    def _window_is_over(self, group: Group) -> bool:
        """Whether this node has seen a sufficient group in this round for the length of the window."""
        now = time.monotonic()
        if len(group.members) < self._settings.least or group.formed:
            self._sufficient = None
        elif self._sufficient is None or self._sufficient[0] != group.round:
            self._sufficient = (group.round, now)
        return self._sufficient is not None and now - self._sufficient[1] >= self._settings.window

    def _dead(self, group: Group) -> frozenset[str]:
        """Who of the group is dead, as far as this node has to know. A member that breaks its own round needs no
        proof: the others come or do not. In a crowd one finds out who does not come, and the rest trust it."""
        asked = [m for m in (*group.members, *group.waiting) if m.id != self._me.id]
        crowded = _size(group) > CROWD
        if group.rank_of(self._me.id) is not None or (crowded and not group.formed and not group.gathers(self._me.id)):
            return frozenset()
        asked = random.sample(asked, NEIGHBOURS) if crowded and len(asked) > NEIGHBOURS else asked
        here = {self._me.id, *(m.id for m in group.members)}
        missing = [m for m in group.expected if m.id not in here]
        return probe([*asked, *missing]) | self._silent()

    def _silent(self) -> frozenset[str]:
        """Who gives no sign of life, without proof of death. When forming takes long, that is worth a listing."""
        return self._heartbeats.call_the_roll() if self._looks > MANY_LOOKS else self._heartbeats.lapsed()

    def _read(self) -> tuple[Group, str | None]:
        """The group, and its version. One that is lost or damaged is empty, and past every round we know of."""
        return self._object.read(Group(round=self._round + 1))

    def _update(self, change: Callable[[Group], Group]) -> None:
        self._object.update(change, Group(round=self._round + 1))

    def _watched(self) -> Group:
        """The group while we train. If it was lost, our round is put back: it goes on, and newcomers, who know of no
        round, must find it before they form one of their own."""
        group, version = self._read()
        members = self._formed_members
        without_us = group.round == self._round and group.rank_of(self._me.id) is None
        lost = group.arrivals == 0 or group.round < self._round or without_us
        if not lost or not members or group.closed:
            return group
        arrivals = 1 + max(member.seniority for member in members)
        ours = Group(round=self._round, formed=True, members=members, arrivals=arrivals)
        if not self._object.write(ours, version):
            return self._group  # somebody was quicker
        log.warning("the group was lost; round %d is put back", self._round)
        return ours

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="rendezvous-watch", daemon=True)
            self._watcher.start()

    def _stop_watching(self) -> None:
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        next_beat = next_look = 0.0
        while not self._stop.wait(self._settings.watch):
            self._refusing = self._refusing | probe(self._neighbours())
            now = time.monotonic()
            try:
                if now >= next_beat:
                    self._heartbeats.beat()
                    neighbours = [member.id for member in self._neighbours()]
                    self._heartbeats.watch(neighbours, len(self._formed_members))
                    next_beat = now + self._settings.beat
                if now >= next_look:
                    self._group = self._watched()
                    # Those who lost a peer know it from their connections: this is for newcomers, who can wait.
                    spared = max(0.0, len(self._formed_members) / READERS - 1) * self._settings.watch
                    next_look = now + spared * random.uniform(0.8, 1.2)
            except StoreError as error:
                # An unreachable store says nothing about peers, and is no reason to stop training.
                log.warning("the rendezvous cannot reach its store, trying again: %s", error)

    def _neighbours(self) -> list[Member]:
        """The next members in rank order: in a ring everybody is looked after by several, at a bounded cost."""
        members = self._formed_members
        at = [member.id for member in members].index(self._me.id) if members else 0
        return [m for m in members[at + 1 :] + members[:at] if m.id not in self._refusing][:NEIGHBOURS]


def _size(group: Group) -> int:
    return max(len(group.members), len(group.expected)) + len(group.waiting)
