"""The controller's eyes: one look at the store and the provider, plus what only watching over time can tell.

The store is read at every look. The provider is asked for its machines only as often as its pace allows: often while
machines come or go, seldom while all is well.
"""

from __future__ import annotations

import dataclasses

from starling.infra.clock import Clock
from starling.infra.errors import NoCapacity, ProviderError, ProviderUnavailable
from starling.infra.providers.base import Machine, Provider
from starling.infra.records import Market, NodeIntent, Offer
from starling.infra.store import Store
from starling.orchestrator.capacity import markets_needed
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.reading import RunReader
from starling.orchestrator.rests import Rests
from starling.orchestrator.retries import Retries
from starling.orchestrator.slots import slots_of
from starling.orchestrator.spec import Spec

QUIET_SECONDS = 15.0
"""A node that has not been heard for so long is worth a look at its machine."""
PRICES_SECONDS = 3600.0
"""How long the price of what was bought on the spot market is taken for current."""
LIST = "list"
RELEASE = "release"


class Observer:
    """Looks at a run. What it remembers is only ever a reason to wait, or to ask less; losing it is harmless."""

    def __init__(self, store: Store, provider: Provider, run: str, clock: Clock) -> None:
        self._provider = provider
        self._run = run
        self._clock = clock
        self._reader = RunReader(store, run)
        self._heard: dict[str, tuple[float | None, float]] = {}
        self._released: dict[str, float] = {}
        self._machines: tuple[Machine, ...] = ()
        self._listed_at: float | None = None
        self._busy = True
        self._offers: dict[Market, tuple[float, tuple[Offer, ...]]] = {}
        self._refused: dict[str, int] = {}
        self._rests = Rests()
        self._calls = Retries()
        self._sales = Retries()
        self._launches = Retries()

    def look(self) -> Facts:
        """Everything there is to know now; what the provider would not tell is among it. Raises StoreError."""
        self._list(self._clock.now())
        # A heartbeat may move while the store is being read: silence goes from after one reading to before another.
        before = self._clock.now()
        facts = self._reader.facts(self._machines)
        now = self._clock.now()
        self._keep_only_what_lasts(facts)
        facts = dataclasses.replace(
            facts,
            nodes=tuple(self._with_memory(node, now) for node in facts.nodes),
            pace=self._provider.pace,
            listed_at=self._listed_at,
            seen_at=before,
            refused=dict(self._refused),
            resting=self._rests.at(now),
            launch_after=self._launches.after,
            unanswered=self._launches.lasting(ProviderUnavailable),
        )
        facts = dataclasses.replace(facts, offers=self._offers_needed(facts, now))
        self._busy = _is_busy(facts)
        hindrances = (*self._calls.of(LIST), *self._sales.all, *self._launches.all)
        trouble = tuple(failed.error for failed in (*self._calls.all, *self._sales.all, *self._launches.all))
        return dataclasses.replace(facts, trouble=trouble, hindrances=hindrances)

    def launched(self, node: str, offer: Offer, now: float) -> None:
        self._launches.succeeded(node)
        self._refused.pop(node, None)
        self._rests.bought(offer, now)
        self._busy = True

    def refused(self, intent: NodeIntent, error: NoCapacity, asked_at: float, now: float) -> None:
        """This attempt has failed for certain: another one may be made, with offers that do not rest."""
        self._launches.succeeded(intent.node)
        self._refused[intent.node] = intent.attempt
        self._rests.refused(intent.candidates or (intent.offer,), error.refusals, asked_at, now)

    def launch_failed(self, node: str, error: ProviderError, now: float) -> None:
        """Nobody knows whether it was launched: the same attempt again, later."""
        self._launches.failed(node, error, now)
        self._busy = True

    def released(self, nodes: list[str], now: float) -> None:
        self._released.update(dict.fromkeys(nodes, now))
        self._busy = True

    def call_failed(self, what: str, error: ProviderError, now: float) -> None:
        self._calls.failed(what, error, now)

    def call_succeeded(self, what: str) -> None:
        self._calls.succeeded(what)

    def may_call(self, what: str, now: float) -> bool:
        """Whether it is time to try again what has failed."""
        return self._calls.may(what, now)

    def lost_sight(self) -> None:
        """The store failed, so silence until now means nothing: nodes could not write either, perhaps."""
        self._heard.clear()

    def _list(self, now: float) -> None:
        """Before the store is read: whatever has no intent then is really a stray."""
        pace = self._provider.pace
        pause = pace.list_busy if self._busy else pace.list_calm
        if (self._listed_at is not None and now < self._listed_at + pause) or not self._calls.may(LIST, now):
            return
        try:
            found = self._provider.list(self._run)
        except ProviderError as error:
            self._calls.failed(LIST, error, now)
            return
        self._calls.succeeded(LIST)
        self._machines = tuple(machine for machine in found if _is_node_of(self._run, machine))
        self._listed_at = now

    def _keep_only_what_lasts(self, facts: Facts) -> None:
        """What failed and is not to be done any more is no trouble either."""
        self._launches.keep_only([node.node for node in facts.present if node.counts and node.never_seen])
        if not any(node.intent.terminate is not None and node.up for node in facts.nodes):
            self._calls.succeeded(RELEASE)

    def _with_memory(self, node: NodeFacts, now: float) -> NodeFacts:
        beat = node.status.at if node.status else None
        known = self._heard.get(node.node)
        if known is None or known[0] != beat:
            self._heard[node.node] = known = (beat, now)
        return dataclasses.replace(node, heard_at=known[1], released_at=self._released.get(node.node))

    def _offers_needed(self, facts: Facts, now: float) -> tuple[Offer, ...]:
        """Little is asked while nothing is to be bought: only what the machines that were bought cost by now."""
        needed = markets_needed(facts, slots_of(facts, now), now) if facts.buying else set()
        pauses = {Market.SPOT: PRICES_SECONDS} if any(map(_has_moving_price, facts.present)) else {}
        pauses |= dict.fromkeys(needed, self._provider.pace.offers)
        self._sales.keep_only(pauses)
        return tuple(
            offer for market in sorted(pauses) for offer in self._offers_of(facts.spec, market, now, pauses[market])
        )

    def _offers_of(self, spec: Spec, market: Market, now: float, pause: float) -> tuple[Offer, ...]:
        known = self._offers.get(market)
        if (known is not None and now < known[0] + pause) or not self._sales.may(market, now):
            return known[1] if known is not None else ()
        try:
            found = tuple(self._provider.offers(gpus=spec.nodes.gpus_per_node, market=market.value))
        except ProviderError as error:
            self._sales.failed(market, error, now)
            return known[1] if known is not None else ()
        self._sales.succeeded(market)
        self._offers[market] = (now, found)
        return found


def _is_busy(facts: Facts) -> bool:
    """Whether the provider may have news."""
    ending = facts.verdict is not None or facts.run.stop is not None
    return ending or bool(facts.strays) or any(_is_unsettled(facts, node) for node in facts.present)


def _has_moving_price(node: NodeFacts) -> bool:
    return node.intent.launched_at is not None and node.offer.market is Market.SPOT


def _is_unsettled(facts: Facts, node: NodeFacts) -> bool:
    """Wanted, not heard yet, quiet, or on its way out."""
    return node.status is None or facts.silence(node) > QUIET_SECONDS or not node.counts


def _is_node_of(run: str, machine: Machine) -> bool:
    parts = machine.node.split(".")
    return len(parts) == 3 and parts[0] == run and parts[1].isdigit() and parts[2].isdigit()
