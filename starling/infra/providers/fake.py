"""A provider without machines: scripted capacity, failures and interruptions, and a log of all calls.

For tests and for trying the controller out. What runs on a machine is the caller's business: `alive` says which
machines there are, `notices` which of them have been told to go.
"""

from __future__ import annotations

import dataclasses
from collections import deque

from starling.infra.clock import Clock
from starling.infra.errors import NoCapacity, ProviderError
from starling.infra.providers.base import Machine
from starling.infra.records import Market, NodeIntent, Offer


class FakeProvider:
    """Keeps the Provider protocol to the letter, in memory."""

    name = "fake"

    def __init__(self, clock: Clock, *, price_per_hour: float = 1.0, capacity: int | None = None) -> None:
        self._clock = clock
        self._price = price_per_hour
        self.capacity = capacity
        """How many machines can be alive at once; None: any number. May be changed at any time."""
        self.calls: list[tuple[str, str]] = []
        """(operation, node) of every call that changes something, in order."""
        self.started: list[str] = []
        """Nodes whose machines really started, in order; no node twice."""
        self.notices: dict[str, float] = {}
        """Node -> when its machine will be taken."""
        self._machines: dict[str, Machine] = {}
        self._failures: dict[str, deque[Exception]] = {}

    def fail_next(self, operation: str, error: Exception, times: int = 1) -> None:
        """Have the next calls of an operation ("launch", "list", ...) raise this."""
        self._failures.setdefault(operation, deque()).extend([error] * times)

    def end(self, node: str, reason: str) -> None:
        """The machine goes away by itself."""
        machine = self._machines[node]
        if machine.alive:
            self._machines[node] = dataclasses.replace(
                machine, alive=False, ended_at=self._clock.now(), ended_reason=reason
            )

    @property
    def machines(self) -> list[Machine]:
        """What `list` shows, without scripted failures."""
        self._take_due()
        return [*self._machines.values()]

    @property
    def alive(self) -> list[str]:
        """Nodes whose machines run now."""
        return [machine.node for machine in self.machines if machine.alive]

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        self._maybe_fail("offers")
        return [
            Offer(
                provider=self.name,
                instance_type="fake.1x",
                zone="fake-a",
                market=Market(market),
                price_per_hour=self._price,
                gpus=gpus,
            )
        ]

    def launch(self, intent: NodeIntent, store_uri: str) -> None:
        self.calls.append(("launch", intent.node))
        self._maybe_fail("launch")
        if intent.node in self.started:
            return
        if self.capacity is not None and len(self.alive) >= self.capacity:
            raise NoCapacity(f"no {intent.offer.instance_type} in {intent.offer.zone} at present")
        self.started.append(intent.node)
        self._machines[intent.node] = Machine(
            node=intent.node,
            instance_id=f"i-{intent.node}",
            alive=True,
            launched_at=self._clock.now(),
            address="127.0.0.1",
        )

    def list(self, run: str | None = None) -> list[Machine]:
        self._maybe_fail("list")
        return [machine for machine in self.machines if run is None or machine.node.startswith(f"{run}.")]

    def terminate(self, node: str) -> None:
        self.calls.append(("terminate", node))
        self._maybe_fail("terminate")
        if node in self._machines:
            self.end(node, "terminated")

    def interrupt(self, node: str, notice: float | None) -> None:
        self.calls.append(("interrupt", node))
        self._maybe_fail("interrupt")
        if node not in self.alive:
            raise ProviderError(f"{node} is not running")
        if notice is None:
            self.end(node, "interrupted")
        else:
            self.notices[node] = self._clock.now() + notice

    def forget(self, node: str) -> None:
        self.calls.append(("forget", node))
        machine = self._machines.get(node)
        if machine is not None and not machine.alive:
            del self._machines[node]

    def _take_due(self) -> None:
        for node, due in list(self.notices.items()):
            if due <= self._clock.now():
                del self.notices[node]
                if node in self._machines:
                    self.end(node, "interrupted after notice")

    def _maybe_fail(self, operation: str) -> None:
        waiting = self._failures.get(operation)
        if waiting:
            raise waiting.popleft()
