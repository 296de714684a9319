"""The controller's eyes: one look at the store and the provider, plus what only watching over time can tell."""

from __future__ import annotations

import dataclasses

from starling.infra.providers.base import Machine, Provider
from starling.infra.records import Offer
from starling.infra.store import Store
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.reading import RunReader
from starling.orchestrator.spec import Spec

OFFERS_SECONDS = 60.0
"""How long offers are taken for current."""
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0


class Observer:
    """Looks at a run. What it remembers is only ever a reason to wait; losing it is harmless."""

    def __init__(self, store: Store, provider: Provider, run: str) -> None:
        self._provider = provider
        self._run = run
        self._reader = RunReader(store, run)
        self._heard: dict[str, tuple[float | None, float]] = {}
        self._offers: tuple[float, tuple[Offer, ...]] | None = None
        self._refused: dict[str, tuple[int, float]] = {}

    def look(self, now: float) -> Facts:
        """Everything there is to know now. Raises StoreError, ProviderError."""
        machines = [machine for machine in self._provider.list(self._run) if _is_node_of(self._run, machine)]
        facts = self._reader.facts(machines)
        return dataclasses.replace(
            facts,
            nodes=tuple(self._with_memory(node, now) for node in facts.nodes),
            offers=self._current_offers(facts.spec, now) if facts.buying else (),
            launch_after={node: after for node, (_, after) in self._refused.items()},
        )

    def refused(self, node: str, now: float) -> bool:
        """A launch did not succeed: the next try comes later, and later each time. True the first time in a row."""
        times = self._refused.get(node, (0, 0.0))[0]
        self._refused[node] = (times + 1, now + min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0**times))
        return times == 0

    def launched(self, node: str) -> None:
        self._refused.pop(node, None)

    def lost_sight(self) -> None:
        """A look failed, so silence until now means nothing: nodes could not write either, perhaps."""
        self._heard.clear()

    def _with_memory(self, node: NodeFacts, now: float) -> NodeFacts:
        beat = node.status.at if node.status else None
        known = self._heard.get(node.node)
        if known is None or known[0] != beat:
            self._heard[node.node] = known = (beat, now)
        return dataclasses.replace(node, heard_at=known[1])

    def _current_offers(self, spec: Spec, now: float) -> tuple[Offer, ...]:
        if self._offers is None or now >= self._offers[0] + OFFERS_SECONDS:
            found = self._provider.offers(gpus=spec.nodes.gpus_per_node, market=spec.nodes.market)
            self._offers = (now, tuple(found))
        return self._offers[1]


def _is_node_of(run: str, machine: Machine) -> bool:
    parts = machine.node.split(".")
    return len(parts) == 3 and parts[0] == run and parts[1].isdigit() and parts[2].isdigit()
