"""Plays a region script against the cloud."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import singledispatchmethod

from starling.infra.region.cloud import EmulatedCloud, MachineView
from starling.infra.region.script import (
    Action,
    Capacity,
    Fail,
    Lose,
    Price,
    Rebalance,
    Take,
    Throttle,
    Timed,
    Where,
    due,
)

RECLAIM_NOTICE = 120.0
"""Region seconds of notice for what a trace takes away."""

_log = logging.getLogger("starling.region.script")


class Driver:
    """Knows how far the script has been played. Call `play` again and again."""

    def __init__(
        self,
        cloud: EmulatedCloud,
        script: Sequence[Timed],
        *,
        traced: Sequence[Timed] = (),
        scale: float = 1.0,
        seed: int = 0,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """`scale` region seconds pass in one second. `traced` holds capacities that reclaim what exceeds them."""
        self._cloud = cloud
        self._script = tuple(script)
        self._traced = tuple(traced)
        self._scale = scale
        self._random = random.Random(seed)
        self._say = say
        self._played: float | None = None
        self._began_at: float | None = None

    def begin(self) -> None:
        """Start the script's clock, if it does not run yet."""
        if self._began_at is None:
            self._began_at = self._cloud.now()

    def play(self) -> None:
        """Do what is due by now."""
        now = 0.0 if self._began_at is None else (self._cloud.now() - self._began_at) * self._scale
        for timed in due(self._script, self._played, now):
            self._do(timed.action)
        for timed in due(self._traced, self._played, now):
            self._do(timed.action)
            self._reclaim(timed.action)
        self._played = now

    def _wall(self, seconds: float) -> float:
        return seconds / self._scale

    @singledispatchmethod
    def _do(self, action: Action) -> None:
        raise AssertionError(f"nothing plays {action!r}")

    @_do.register
    def _(self, action: Take) -> None:
        for machine in self._chosen(action, action.nodes):
            self._say(f"{machine.id} ({_kind(machine)}) will be taken in {action.notice:g} s of region time")
            self._cloud.interrupt(machine.id, self._wall(action.notice))

    @_do.register
    def _(self, action: Lose) -> None:
        for machine in self._chosen(action, action.nodes):
            self._say(f"{machine.id} ({_kind(machine)}) is lost without a word")
            self._cloud.interrupt(machine.id, None)

    @_do.register
    def _(self, action: Rebalance) -> None:
        for machine in self._chosen(action, action.nodes):
            self._say(f"{machine.id} ({_kind(machine)}) is recommended to leave")
            self._cloud.recommend_rebalance(machine.id)

    @_do.register
    def _(self, action: Capacity) -> None:
        many = "any number" if action.nodes is None else str(action.nodes)
        self._say(f"capacity of {_where(action)}: {many}")
        self._cloud.capacity.set(action.type, action.zone, action.market, action.nodes, code=action.code)

    @_do.register
    def _(self, action: Fail) -> None:
        seconds = None if action.seconds is None else self._wall(action.seconds)
        self._say(f"{action.action} fails with {action.code}")
        self._cloud.fail(action.action, action.code, times=action.times, seconds=seconds, message=action.message)

    @_do.register
    def _(self, action: Price) -> None:
        self._say(f"{action.type} in {action.zone} costs ${action.price:g} an hour")
        self._cloud.prices.set_spot(action.type, action.zone, action.price, self._cloud.now())

    @_do.register
    def _(self, action: Throttle) -> None:
        self._say(f"all calls are throttled for {action.seconds:g} s of region time")
        self._cloud.throttle(self._wall(action.seconds))

    def _chosen(self, where: Where, nodes: int | str) -> list[MachineView]:
        """By lot among the older half of those that fit and are not announced to go: to take one that still boots would
        show little."""
        fitting = [
            machine
            for machine in self._cloud.instances()
            if machine.state == "running"
            and self._cloud.warned(machine.id).taken_at is None
            and fnmatchcase(machine.type, where.type)
            and fnmatchcase(machine.zone, where.zone)
            and fnmatchcase(machine.market.value, where.market)
        ]
        wanted = len(fitting) if nodes == "all" else int(nodes)
        if len(fitting) < wanted:
            self._say(f"only {len(fitting)} of {wanted} instances of {_where(where)} are there to be chosen")
        older = fitting[: max(wanted, (len(fitting) + 1) // 2)]
        return self._random.sample(older, min(wanted, len(older)))

    def _reclaim(self, action: Action) -> None:
        """A trace that falls below what runs takes the rest away."""
        if not isinstance(action, Capacity) or action.nodes is None:
            return
        running: dict[str, int] = {}
        for machine in self._cloud.instances():
            fits = fnmatchcase(machine.zone, action.zone) and machine.market.value == "spot"
            if machine.state == "running" and fits and self._cloud.warned(machine.id).taken_at is None:
                running[machine.type] = running.get(machine.type, 0) + 1
        for name, count in running.items():
            if count > action.nodes:
                self._do(Take(zone=action.zone, type=name, nodes=count - action.nodes, notice=RECLAIM_NOTICE))


def _kind(machine: MachineView) -> str:
    return f"{machine.type} in {machine.zone}, {machine.market.value}"


def _where(where: Where) -> str:
    kind = "any type" if where.type == "*" else where.type
    zone = "any zone" if where.zone == "*" else where.zone
    market = "any market" if where.market == "*" else where.market
    return f"{kind} in {zone}, {market}"
