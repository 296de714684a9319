"""A provider without machines: scripted capacity, failures and interruptions, and a log of all calls.

For tests and for trying the controller out. What runs on a machine is the caller's business: `alive` says which
machines there are, `notices` which of them have been told to go.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter, deque
from collections.abc import Sequence

from starling.infra.clock import Clock
from starling.infra.errors import NoCapacity, ProviderError, Refusal
from starling.infra.providers.base import Launched, Machine, Pace
from starling.infra.records import Market, NodeIntent, Notice, Offer

OfferKey = tuple[str, str, str]
"""Instance type, zone, market."""


class FakeProvider:
    """Keeps the Provider protocol to the letter, in memory."""

    name = "fake"

    def __init__(
        self,
        clock: Clock,
        *,
        price_per_hour: float = 1.0,
        capacity: int | None = None,
        offers: Sequence[Offer] | None = None,
        pace: Pace | None = None,
        list_lag: float = 0.0,
    ) -> None:
        """Sells `offers`, in this order; by default one machine for `price_per_hour`, and three times that on demand.
        A machine is listed only `list_lag` seconds after its launch."""
        self._clock = clock
        self._offers = tuple(offers) if offers is not None else _one_kind(price_per_hour)
        self.pace = pace or Pace()
        self.capacity = capacity
        """How many machines can be alive at once; None: any number. May be changed at any time."""
        self.calls: list[tuple[str, str]] = []
        """(operation, node) of every call that changes something, in order; of `close`, the run."""
        self.asked: Counter[str] = Counter()
        """How often each operation was called."""
        self.started: list[str] = []
        """Nodes whose machines really started, in order; no node twice."""
        self.notices: dict[str, float] = {}
        """Node -> when its machine will be taken."""
        self._room: dict[OfferKey, list[tuple[float, int]]] = {}
        self._refuse_as: dict[OfferKey, type[NoCapacity]] = {}
        self._list_lag = list_lag
        self._machines: dict[str, Machine] = {}
        self._outcomes: dict[tuple[str, int], Launched | NoCapacity] = {}
        self._failures: dict[str, deque[Exception]] = {}
        self._lock = threading.RLock()

    def fail_next(self, operation: str, error: Exception, times: int = 1) -> None:
        """Have the next calls of an operation ("launch", "list", ...) raise this; "launch answer": after having done
        what was asked."""
        self._failures.setdefault(operation, deque()).extend([error] * times)

    def set_room(
        self, key: OfferKey, machines: int, *, at: float | None = None, refuse_as: type[NoCapacity] = NoCapacity
    ) -> None:
        """So many machines of an offer can be alive at once, from now on or from a later time."""
        self._room.setdefault(key, []).append((self._clock.now() if at is None else at, machines))
        self._refuse_as[key] = refuse_as

    def sell(self, *offers: Offer) -> None:
        """These from now on, instead of those before."""
        self._offers = offers

    def end(self, node: str, reason: str, *, taken: bool = False) -> None:
        """The machine goes away, by itself or `taken` by us."""
        machine = self._machines[node]
        if machine.alive:
            self._machines[node] = dataclasses.replace(
                machine, alive=False, ended_at=self._clock.now(), ended_reason=reason, taken=taken
            )

    def announce(self, node: str, notice: Notice) -> None:
        """The provider itself says that it will take a machine, whether or not the machine's agent hears of it."""
        self._machines[node] = dataclasses.replace(self._machines[node], notice=notice)

    @property
    def machines(self) -> list[Machine]:
        """Every machine that is not forgotten."""
        self._take_due()
        return [*self._machines.values()]

    @property
    def alive(self) -> list[str]:
        """Nodes whose machines run now."""
        return [machine.node for machine in self.machines if machine.alive]

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        self._begin("offers")
        return [offer.but(gpus=gpus) for offer in self._offers if offer.market is Market(market)]

    def launch(self, intent: NodeIntent, store_uri: str) -> Launched:
        with self._lock:
            self.calls.append(("launch", intent.node))
            token = (intent.node, intent.attempt)
            try:
                self._begin("launch")
            except NoCapacity as error:
                self._outcomes.setdefault(token, error)
            if token not in self._outcomes:
                self._outcomes[token] = self._try_launch(intent)
            outcome = self._outcomes[token]
            if isinstance(outcome, NoCapacity):
                raise outcome
            self._maybe_fail("launch answer")
            return outcome

    def list(self, run: str | None = None) -> list[Machine]:
        self._begin("list")
        shown = self._clock.now() - self._list_lag
        return [
            machine
            for machine in self.machines
            if (machine.launched_at or 0.0) <= shown and (run is None or machine.node.startswith(f"{run}."))
        ]

    def terminate(self, nodes: Sequence[str]) -> None:
        self.calls += [("terminate", node) for node in nodes]
        self._begin("terminate")
        for node in nodes:
            if node in self._machines:
                self.end(node, "terminated")

    def interrupt(self, node: str, notice: float | None) -> None:
        self.calls.append(("interrupt", node))
        self._begin("interrupt")
        if node not in self.alive:
            raise ProviderError(f"{node} is not running")
        if notice is None:
            self.end(node, "interrupted", taken=True)
        else:
            self.notices[node] = self._clock.now() + notice

    def forget(self, node: str) -> None:
        self.calls.append(("forget", node))
        machine = self._machines.get(node)
        if machine is not None and not machine.alive:
            del self._machines[node]

    def close(self, run: str) -> None:
        self.calls.append(("close", run))
        self._begin("close")

    def _try_launch(self, intent: NodeIntent) -> Launched | NoCapacity:
        """What the first launch of an attempt comes to; the same holds for every repetition."""
        candidates = intent.candidates or (intent.offer,)
        offer = next((offer for offer in candidates if self._has_room(offer)), None)
        if offer is None:
            return NoCapacity("none of the offers can be had at present", tuple(map(self._refusal, candidates)))
        assert intent.node not in self.started, f"{intent.node} was bought in an earlier attempt"
        self.started.append(intent.node)
        machine = Machine(
            node=intent.node,
            instance_id=f"i-{intent.node}",
            alive=True,
            launched_at=self._clock.now(),
            address="127.0.0.1",
            instance_type=offer.instance_type,
            zone=offer.zone,
            market=offer.market,
        )
        self._machines[intent.node] = machine
        return Launched(instance_id=machine.instance_id, offer=offer, at=self._clock.now())

    def _has_room(self, offer: Offer) -> bool:
        if self.capacity is not None and len(self.alive) >= self.capacity:
            return False
        now = self._clock.now()
        rooms = sorted((at, room) for at, room in self._room.get(offer.key, ()) if at <= now)
        taken = [machine for machine in self.machines if machine.alive and _key(machine) == offer.key]
        return not rooms or len(taken) < rooms[-1][1]

    def _refusal(self, offer: Offer) -> Refusal:
        instance_type, zone, market = offer.key
        kind = self._refuse_as.get(offer.key, NoCapacity)
        return Refusal(instance_type=instance_type, zone=zone, market=market, kind=kind, message="none left")

    def _take_due(self) -> None:
        for node, due in [*self.notices.items()]:
            if due <= self._clock.now():
                del self.notices[node]
                if node in self._machines:
                    self.end(node, "interrupted after notice", taken=True)

    def _begin(self, operation: str) -> None:
        self.asked[operation] += 1
        self._maybe_fail(operation)

    def _maybe_fail(self, operation: str) -> None:
        waiting = self._failures.get(operation)
        if waiting:
            raise waiting.popleft()


def _one_kind(price: float) -> tuple[Offer, ...]:
    spot = Offer(
        provider=FakeProvider.name,
        instance_type="fake.1x",
        zone="fake-a",
        market=Market.SPOT,
        price_per_hour=price,
        on_demand_price=3 * price,
    )
    return spot, spot.but(market=Market.ON_DEMAND, price_per_hour=3 * price)


def _key(machine: Machine) -> OfferKey:
    assert machine.market is not None
    return machine.instance_type or "", machine.zone or "", machine.market.value
