"""A rendezvous for TorchElastic that no machine has to survive for: its state is one object in a store.

Usable alone: `torchrun --rdzv-backend=starling --rdzv-endpoint=<folder or s3://bucket/prefix> --rdzv-id=<id> ...`
(see docs/rendezvous.md). It implements TorchElastic's public RendezvousHandler; nothing is pickled.

Store layout under the rendezvous' prefix: `group.json` (conditional writes only), `beats/<member>` (one writer each),
`keys/` (TorchElastic's own bootstrap keys, one folder a round).
"""

from __future__ import annotations

import logging
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)
from torch.distributed.elastic.utils.distributed import get_free_port

from starling.infra.errors import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable, VersionConflict
from starling.infra.store import Store, open_store
from starling.trainer.key_store import KeyStore
from starling.trainer.pulse import Heartbeats, Pulse, probe
from starling.trainer.rendezvous_state import Group, Member, Standing, arrive, depart

log = logging.getLogger(__name__)


NEIGHBOURS = 8
"""Members whose pulse each member feels while training runs."""


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
    """Pause between two looks at the group while it forms."""
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
        self._run_id = run_id
        self._settings = settings
        self._cancelled = cancelled
        member_id = f"{address}-{secrets.token_hex(6)}"
        self._pulse = Pulse(member_id, address)
        self._me = Member(id=member_id, address=address, master_port=0, pulse_port=self._pulse.port, label=label)
        self._heartbeats = Heartbeats(settings.beat * settings.missed_beats)
        self._group = Group()
        self._round = -1
        self._formed_members: tuple[Member, ...] = ()
        self._refusing: frozenset[str] = frozenset()
        self._sufficient: tuple[int, float] | None = None
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
        dead = self._heartbeats.lapsed(time.monotonic()) | self._refusing
        return frozenset(m.id for m in self._formed_members if m.id in dead and m.id != self._me.id)

    def is_closed(self) -> bool:
        return self._group.closed or self._read()[0].closed

    def set_closed(self) -> None:
        """End the rendezvous for everybody, for good."""
        self._update(lambda group: replace(group, closed=True))

    def leave(self) -> None:
        """Go for good, without closing the rendezvous for the others."""
        self._stop_watching()
        self._pulse.close()
        self._update(lambda group: depart(group, self._me.id))
        self._store.delete(f"{self._prefix}/beats/{self._me.id}")

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
        self._update(lambda group: depart(group, self._me.id))
        raise RendezvousTimeoutError(f"no round formed within {self._settings.join_timeout:.0f} s")

    def _try_to_form(self) -> tuple[Group | None, float]:
        """Do what is to be done now; the round if it has formed, and seconds until the next look."""
        group, version = self._read()
        new, standing = arrive(
            group,
            self._me,
            self._dead(group),
            left_round=self._round,
            least=self._settings.least,
            most=self._settings.most,
            window_over=self._window_is_over(group),
        )
        if standing is Standing.CLOSED:
            raise RendezvousClosedError(f"the rendezvous {self._run_id} is closed")
        if new != group and not self._write(new, version):
            return None, random.uniform(0, 0.05)  # losers of a race look again soon, at different times
        return new if standing is Standing.FORMED else None, self._settings.poll * random.uniform(0.5, 1.0)

    def _window_is_over(self, group: Group) -> bool:
        """Whether this node has seen a sufficient group in this round for the length of the window."""
        now = time.monotonic()
        if len(group.members) < self._settings.least or group.formed:
            self._sufficient = None
        elif self._sufficient is None or self._sufficient[0] != group.round:
            self._sufficient = (group.round, now)
        return self._sufficient is not None and now - self._sufficient[1] >= self._settings.window

    def _dead(self, group: Group) -> frozenset[str]:
        """Who of the group is dead. A member that breaks its own round needs no proof: the others come or do not."""
        if group.rank_of(self._me.id) is not None:
            return frozenset()
        others = [m for m in (*group.members, *group.waiting, *group.expected) if m.id != self._me.id]
        return probe(others) | self._heartbeats.lapsed(time.monotonic())

    def _read(self) -> tuple[Group, str | None]:
        """The group, and its version. One that is lost or damaged is empty, and past every round we know of."""
        afresh = Group(round=self._round + 1)
        try:
            found = self._store.get(f"{self._prefix}/group.json")
        except ObjectNotFound:
            return afresh, None
        try:
            return Group.from_bytes(found.data), found.version
        except ValueError as error:
            log.warning("the group's object is damaged, beginning afresh: %s", error)
            return afresh, found.version

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
        if not self._write(ours, version):
            return self._group  # somebody was quicker
        log.warning("the group was lost; round %d is put back", self._round)
        return ours

    def _write(self, group: Group, version: str | None) -> bool:
        key = f"{self._prefix}/group.json"
        try:
            if version is None:
                self._store.create(key, group.to_bytes())
            else:
                self._store.replace(key, group.to_bytes(), version)
        except (ObjectExists, VersionConflict):
            return False
        return True

    def _update(self, change: Callable[[Group], Group]) -> None:
        while True:
            group, version = self._read()
            changed = change(group)
            if changed == group or self._write(changed, version):
                return
            time.sleep(random.uniform(0, 0.05))

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="rendezvous-watch", daemon=True)
            self._watcher.start()

    def _stop_watching(self) -> None:
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        next_beat = 0.0
        count = 0
        while not self._stop.wait(self._settings.watch):
            try:
                if time.monotonic() >= next_beat:
                    count += 1
                    self._store.put(f"{self._prefix}/beats/{self._me.id}", str(count).encode())
                    self._observe_beats()
                    next_beat = time.monotonic() + self._settings.beat
                self._group = self._watched()
                self._refusing = self._refusing | probe(self._neighbours())
            except StoreError as error:
                # An unreachable store says nothing about peers, and is no reason to stop training.
                log.warning("the rendezvous cannot reach its store, trying again: %s", error)

    def _neighbours(self) -> list[Member]:
        """The next members in rank order: in a ring everybody is looked after by several, at a bounded cost."""
        members = self._formed_members
        at = [member.id for member in members].index(self._me.id) if members else 0
        return [m for m in members[at + 1 :] + members[:at] if m.id not in self._refusing][:NEIGHBOURS]

    def _observe_beats(self) -> None:
        prefix = f"{self._prefix}/beats/"
        tags = {info.key.removeprefix(prefix): info.tag for info in self._store.list(prefix)}
        self._heartbeats.observe(tags, time.monotonic())


def create_handler(parameters: RendezvousParameters) -> StoreRendezvous:
    """Build the handler from torchrun's `--rdzv-*` options; `--rdzv-conf` takes `join_timeout`, `window`, `beat`
    and `missed_beats`, whole seconds."""
    store = open_store(parameters.endpoint)
    chosen = {name: parameters.get_as_int(name) for name in ("join_timeout", "window", "beat", "missed_beats")}
    settings = Settings(
        least=parameters.min_nodes,
        most=parameters.max_nodes,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    address = parameters.local_addr or _own_address()
    return StoreRendezvous(store, f"rendezvous/{parameters.run_id}", parameters.run_id, address, settings)


def handler_factory() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """Entry point `torchrun.handlers`."""
    return create_handler


def _own_address() -> str:
    """The address by which the default route leaves this machine; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
