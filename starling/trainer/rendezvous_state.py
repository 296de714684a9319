"""Group formation as a pure function over one JSON object. No clock, no I/O.

A group is either gathering (members arrive) or formed (ranks are fixed, training runs). A formed round is broken
as soon as one of its members comes back to form a new one, because training cannot go on without it: the others
find the round over and come too. Nobody waits for a member that is known to be dead.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One node's entry in the group."""

    id: str
    """Unique for every process that ever takes part."""
    address: str
    """Where peers reach this node."""
    master_port: int
    """A free port at `address`, for the training processes' store should this member become rank 0."""
    pulse_port: int
    """Answers with `id` for as long as this member lives."""
    label: str = ""
    """What people call the node."""
    seniority: int = -1
    """Order of first arrival (-1: not yet known); the most senior member is rank 0, so survivors rank before
    newcomers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The whole shared state."""

    round: int = 0
    formed: bool = False
    members: tuple[Member, ...] = ()
    """In rank order once formed."""
    expected: tuple[Member, ...] = ()
    """While gathering: who is known to be on the way; when all are here there is nobody to wait for."""
    open_window: bool = True
    """While gathering: whether unknown nodes may be on the way, so that a waiting window applies."""
    waiting: tuple[Member, ...] = ()
    """While formed: newcomers who ask to be let in."""
    arrivals: int = 0
    closed: bool = False

    def to_bytes(self) -> bytes:
        """JSON with a nonce, so that no two writes have the same version."""
        return json.dumps({**asdict(self), "nonce": secrets.token_hex(8)}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Group:
        """Raises ValueError if this is no group."""
        raw = json.loads(data)
        try:
            raw.pop("nonce")
            for key in ("members", "waiting", "expected"):
                raw[key] = tuple(Member(**member) for member in raw[key])
            return cls(**raw)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is not a group: {error!r}") from error

    def rank_of(self, member_id: str) -> int | None:
        """Rank in the formed round."""
        ids = [member.id for member in self.members]
        return ids.index(member_id) if self.formed and member_id in ids else None

    def gathers(self, member_id: str) -> bool:
        """Whether it has arrived in a round that is yet to form."""
        return not self.formed and any(member.id == member_id for member in self.members)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A node that wants to train."""

    member: Member
    left_round: int
    """The last round it was formed in (-1: none); being a member of that very round means that its workers have
    stopped and it wants a new one."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Arrival:
        """Raises ValueError if this is no arrival."""
        raw = json.loads(data)
        try:
            return cls(member=Member(**raw["member"]), left_round=int(raw["left_round"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not an arrival: {error!r}") from error


class Standing(Enum):
    """Where a node stands after a look at the group."""

    FORMED = "formed"
    GATHERING = "gathering"
    WAITING = "waiting"
    """Asked to be let in; the members will come to gather at their next step boundary."""
    SPARE = "spare"
    """The group is full."""
    CLOSED = "closed"


def arrive(
    group: Group,
    arrival: Arrival,
    dead: frozenset[str],
    *,
    least: int,
    most: int,
    window_over: bool,
    others: Iterable[Arrival] = (),
) -> tuple[Group, Standing]:
    """What a node that wants to train does to the group, and where it then stands.

    Args:
        dead: ids known to be dead.
        least, most: smallest and largest group.
        window_over: whether this node has seen a sufficient group for the length of the waiting window.
        others: nodes that could not write themselves and are brought along.
    """
    me = arrival.member
    if group.closed:
        return group, Standing.CLOSED
    for each in (arrival, *(other for other in others if other.member.id not in dead)):
        group = _enter(group, each, dead, most)
    if group.formed:
        if group.rank_of(me.id) is not None:
            return group, Standing.FORMED
        return group, Standing.WAITING if _among(group.waiting, me) else Standing.SPARE
    if not _among(group.members, me):
        return group, Standing.SPARE
    group = _form_if_complete(group, least, most, window_over)
    return group, Standing.FORMED if group.formed else Standing.GATHERING


def depart(group: Group, member_id: str) -> Group:
    """Take a node that goes for good out of a gathering or the waiting list.

    A formed round keeps its members: they find out, and form the next one without it.
    """
    gone = frozenset({member_id})
    group = replace(group, waiting=_without(group.waiting, gone), expected=_without(group.expected, gone))
    return group if group.formed else replace(group, members=_without(group.members, gone))


def _enter(group: Group, arrival: Arrival, dead: frozenset[str], most: int) -> Group:
    if group.formed:
        if group.rank_of(arrival.member.id) is not None and group.round > arrival.left_round:
            return group
        group = _after_formed(group, arrival.member, dead, most)
    return group if group.formed else _gather(group, arrival.member, dead, most)


def _after_formed(group: Group, me: Member, dead: frozenset[str], most: int) -> Group:
    members = {member.id for member in group.members}
    if me.id in members or members & dead:
        return replace(
            group,
            round=group.round + 1,
            formed=False,
            members=(),
            waiting=(),
            expected=_without((*group.members, *group.waiting), dead | {me.id}),
            # With nobody left of the old round, others may be booting just like this node.
            open_window=not members - dead,
        )
    if _among(group.waiting, me) or len(members) >= most:
        return group
    return replace(group, waiting=(*group.waiting, me))


def _gather(group: Group, me: Member, dead: frozenset[str], most: int) -> Group:
    members = _without(group.members, dead)
    group = replace(group, members=members, expected=_without(group.expected, dead))
    if _among(members, me) or len(members) >= most:
        return group
    # A node that has been in a round carries its seniority; a newcomer gets the next number.
    seniority = me.seniority if me.seniority >= 0 else group.arrivals
    entered = replace(me, seniority=seniority)
    return replace(group, members=(*members, entered), arrivals=max(group.arrivals, seniority + 1))


def _form_if_complete(group: Group, least: int, most: int, window_over: bool) -> Group:
    here = {member.id for member in group.members}
    settled = not group.open_window and here >= {member.id for member in group.expected}
    if len(here) < least or not (settled or window_over or len(here) == most):
        return group
    ranked = tuple(sorted(group.members, key=lambda member: (member.seniority, member.id)))
    return replace(group, formed=True, members=ranked, expected=())


def _among(members: tuple[Member, ...], me: Member) -> bool:
    return any(member.id == me.id for member in members)


def _without(members: tuple[Member, ...], ids: frozenset[str]) -> tuple[Member, ...]:
    return tuple(member for member in members if member.id not in ids)
