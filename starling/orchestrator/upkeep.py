"""What has to be done about machines whatever state the run is in: write down what is known, end what should not run.

Pure. Nothing is concluded from a machine's absence unless the provider has been asked since it must have shown it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from starling.infra.providers.base import Machine
from starling.infra.records import Market, NodeIntent, NodeStatus, Offer, Termination
from starling.orchestrator.actions import (
    Action,
    RecordGone,
    RecordLaunched,
    RecordPrice,
    Relieve,
    Terminate,
    TerminateStray,
)
from starling.orchestrator.facts import Facts, NodeFacts, by_slot
from starling.orchestrator.ledger import price_now
from starling.orchestrator.rests import OfferKey

SILENT_SECONDS = 60.0
"""A machine whose agent has not been heard for so long is replaced."""
END_GRACE_SECONDS = 45.0
"""How long a node may take to end itself once it knows that it should."""
LEAVE_SECONDS = 900.0
"""How long a node may take to leave that is given all the time it needs."""
PRICE_STEP = 0.01
"""A price that has moved by less, as a share of itself, is not written down."""


def upkeep(facts: Facts, now: float) -> list[Action]:
    """Records first, so that nothing is lost if we die in between."""
    return [*_records(facts, now), *_relieved(facts, now), *_endings(facts, now), *_stray_endings(facts, now)]


def _records(facts: Facts, now: float) -> Iterator[Action]:
    """Facts worth writing down."""
    prices = {offer.key: offer.price_per_hour for offer in facts.offers}
    for node in facts.present:
        machine, intent = node.machine, node.intent
        started = machine.launched_at if machine is not None else None
        if machine is not None and started is not None and (intent.launched_at is None or intent.instance_id is None):
            yield RecordLaunched(node=node.node, at=started, instance_id=machine.instance_id, offer=node.offer)
        if gone := _found_gone(facts, node, now):
            yield gone
        elif (price := _moved_price(node, prices)) is not None:
            yield RecordPrice(node=node.node, at=now, price_per_hour=price)


def _moved_price(node: NodeFacts, prices: Mapping[OfferKey, float]) -> float | None:
    """What a machine on the spot market costs now, if that is worth writing down."""
    if not node.up or node.intent.launched_at is None or node.offer.market is not Market.SPOT:
        return None
    before = price_now(node)
    price = prices.get(node.offer.key, before)
    return price if abs(price - before) > PRICE_STEP * before else None


def _relieved(facts: Facts, now: float) -> Iterator[Action]:
    """Whoever may be taken leaves once somebody else could train in its place."""
    seen_at = now if facts.seen_at is None else facts.seen_at
    for chain in by_slot(facts.current).values():
        for older, younger in pairwise(node for node in chain if node.counts):
            if older.advised and younger.ready(seen_at):
                yield Relieve(node=older.node, reason=f"a rebalance was recommended; {younger.node} takes over")


def _found_gone(facts: Facts, node: NodeFacts, now: float) -> RecordGone | None:
    machine, intent, status = node.machine, node.intent, node.status
    said = status is not None and status.ended is not None
    if machine is not None:
        at = machine.ended_at if machine.ended_at is not None else now
        reason = _why_ended(machine, status)
        if machine.alive:
            return None
        return RecordGone(node=node.node, at=at, reason=reason, agent_said_so=said, taken=machine.taken)
    if facts.listed_at is None:
        return None
    if node.never_seen:
        settled = intent.terminate is not None and facts.listed_at >= intent.terminate.at + facts.pace.settle
        reason = "it was never launched"
        return RecordGone(node=node.node, at=intent.wanted_at, reason=reason, agent_said_so=False) if settled else None
    if facts.listed_at < (node.billed_from or 0.0) + facts.pace.settle or not (_silent(facts, node) or said):
        return None
    last_word = status.at if status else intent.launched_at or now
    reason = "the provider does not know its machine any more"
    return RecordGone(node=node.node, at=last_word, reason=reason, agent_said_so=said)


def _why_ended(machine: Machine, status: NodeStatus | None) -> str:
    if status is not None and status.ended is not None:
        return status.ended.reason
    return machine.ended_reason or "its machine ended"


def _silent(facts: Facts, node: NodeFacts) -> bool:
    return facts.silence(node) > SILENT_SECONDS


def _endings(facts: Facts, now: float) -> Iterator[Action]:
    """Machines that run and should not, and launches that are not to be made any more."""
    for node in facts.nodes:
        if reason := _why_end(facts, node, now) if node.up else _why_take_back(facts, node):
            yield Terminate(node=node.node, reason=reason)


def _why_take_back(facts: Facts, node: NodeFacts) -> str | None:
    """Should its machine turn up all the same, the word that is committed now ends it."""
    if not node.never_seen or not node.counts:
        return None
    if node.intent.incarnation < facts.run.incarnation:
        return _outdated(facts, node)
    since = facts.unanswered.get(node.node)
    if since is not None and facts.listed_at is not None and facts.listed_at >= since + facts.pace.boot:
        return f"its launch was not answered for {facts.pace.boot:g} s, and no machine turned up"
    return None


def _outdated(facts: Facts, node: NodeFacts) -> str:
    return f"it belongs to incarnation {node.intent.incarnation}; the run is at {facts.run.incarnation}"


def _why_end(facts: Facts, node: NodeFacts, now: float) -> str | None:
    intent, status = node.intent, node.status
    launched = intent.launched_at or (node.machine.launched_at if node.machine else None)
    if intent.terminate is not None:
        asked = node.released_at is not None and (facts.listed_at or 0.0) <= node.released_at
        return None if asked else intent.terminate.reason  # until it has been looked at since, there is nothing to say
    if node.gone:
        return "it was taken for gone, and its slot was filled again"
    if intent.incarnation < facts.run.incarnation:
        return _outdated(facts, node)
    if intent.authorised_until is not None and now > intent.authorised_until + END_GRACE_SECONDS:
        return "it outlived its authorisation"
    if intent.leave is not None and now > intent.leave.at + LEAVE_SECONDS:
        return f"it was asked to leave {LEAVE_SECONDS:g} s ago ({intent.leave.reason})"
    if status is None:
        late = launched is not None and now > launched + facts.pace.boot and _silent(facts, node)
        return f"its agent did not report within {facts.pace.boot:g} s" if late else None
    if status.ended is not None:
        outlived = now > status.ended.at + END_GRACE_SECONDS
        return f"its agent ended ({status.ended.reason}) but its machine did not" if outlived else None
    return f"its agent was silent for {SILENT_SECONDS:g} s" if _silent(facts, node) else None


def _stray_endings(facts: Facts, now: float) -> Iterator[Action]:
    """Machines without an intent; the intent that is committed first takes their place in the books."""
    for machine in facts.strays:
        _, slot, generation = machine.node.rsplit(".", 2)
        reason = "no intent exists for this machine"
        intent = NodeIntent(
            node=machine.node,
            run=facts.run.run,
            incarnation=facts.run.incarnation,
            slot=int(slot),
            generation=int(generation),
            offer=_stray_offer(facts, machine),
            instance_id=machine.instance_id,
            wanted_at=now,
            authorised_until=now,
            launched_at=machine.launched_at,
            terminate=Termination(at=now, reason=reason),
        )
        yield TerminateStray(intent=intent, reason=reason)


def _stray_offer(facts: Facts, machine: Machine) -> Offer:
    """What a stray cost is unknown: as much as the dearest thing that we could have bought. So is what it computes
    with: an exact run must not keep to that."""
    known = [*facts.offers, *(node.intent.offer for node in facts.nodes)]
    unknown = Offer(
        provider=facts.spec.provider.name,
        instance_type="unknown",
        zone="unknown",
        market=Market.SPOT,
        price_per_hour=0.0,
    )
    dearest = max(known, key=lambda offer: offer.price_per_hour, default=unknown)
    told = {"instance_type": machine.instance_type, "zone": machine.zone, "market": machine.market}
    return dearest.but(device=None, **{name: value for name, value in told.items() if value is not None})
