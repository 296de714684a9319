"""Which offers a node may be bought as now, and why those. Pure.

From all that the provider sells, in its order: the market that it is time for, the zone and the kind of device that the
run keeps to, without those that were refused lately.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starling.infra.records import Market, Offer, RunRecord
from starling.orchestrator.deadline import nodes_needed
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.provider_sections import AwsSection
from starling.orchestrator.rests import OfferKey
from starling.orchestrator.setbacks import shunned
from starling.orchestrator.slots import Need, Slots, slots_of
from starling.orchestrator.spec import Spec

MOST_CANDIDATES = 30
"""In one request."""
_NAMED = 3
"""So many refused offers are named in a reason; the journal has them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What one slot may be filled with."""

    need: Need
    candidates: tuple[Offer, ...]
    """Of one market, best first; empty: it has to wait."""
    why: str
    """Why the full price is paid, or why nothing can be bought now; empty for what the spec asks for, and where nothing
    needs to be bought."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pins:
    """What every further node has to have in common with those that are there."""

    device: str | None
    zone: str | None


def markets_needed(facts: Facts, slots: Slots, now: float) -> set[Market]:
    """Whose offers have to be known to choose for these slots."""
    if not slots.needs:
        return set()
    usual = Market(facts.spec.nodes.market)
    short = _short_of_deadline(facts, slots, now)
    needs = [need for need in slots.needs if not need.spare]
    return {usual} | {Market.ON_DEMAND for need in needs if _why_full_price(facts.spec, need, short, now)}


def choose(facts: Facts, slots: Slots, now: float) -> list[Choice]:
    """What each slot in need may be filled with."""
    short = _short_of_deadline(facts, slots, now)
    pins = _pins(facts, slots)
    bad = shunned(facts, now) if slots.needs else set()
    chosen = []
    for need in slots.needs:
        choice = _choose(facts, need, pins, bad, short, now)
        chosen.append(choice)
        if choice.candidates:
            short -= choice.candidates[0].market is Market.ON_DEMAND
            pins = _pinned_by(facts.spec, pins, choice.candidates[0])
    return chosen


def first_candidates(spec: Spec, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """What the nodes of a run that has just been created may be bought as, whichever zone they will share."""
    anywhere = {"provider": spec.provider.model_copy(update={"same_zone": False})} if shares_zone(spec) else {}
    free = spec.model_copy(update=anywhere)
    new = Facts(run=RunRecord(run="new", created_at=0.0), spec=free, verdict=None, nodes=(), offers=tuple(offers))
    return choose(new, slots_of(new, 0.0), 0.0)[0].candidates


def shares_zone(spec: Spec) -> bool:
    """Whether all nodes of the run are to lie in one zone."""
    return isinstance(spec.provider, AwsSection) and spec.provider.same_zone and spec.nodes.max > 1


def keeps_device(spec: Spec) -> bool:
    """Whether all nodes of the run must compute with one kind of device: only then are the bits the same."""
    return spec.training is not None and spec.training.exact


def _choose(facts: Facts, need: Need, pins: Pins, bad: set[OfferKey], short: int, now: float) -> Choice:
    usual = _fitting(facts, Market(facts.spec.nodes.market), pins, bad, or_bad=not need.spare)
    if need.spare:
        return Choice(need=need, candidates=usual, why="")
    why = _why_full_price(facts.spec, need, short, now)
    # The usual market gets its chance first, however long the slot has been empty without anybody looking.
    if why is not None and (need.holder is not None or not usual):
        full = _fitting(facts, Market.ON_DEMAND, pins, bad)
        if full:
            return Choice(need=need, candidates=full, why=f"on demand: {why}")
    return Choice(need=need, candidates=usual, why="" if usual else _why_nothing(facts, pins))


def _why_full_price(spec: Spec, need: Need, short: int, now: float) -> str | None:
    if Market(spec.nodes.market) is not Market.SPOT:
        return None
    patience = spec.nodes.on_demand_after
    if patience is not None and now >= need.since + patience:
        return f"it could not be had for {patience:g} s (nodes.on_demand_after)"
    return "the deadline needs it (nodes.on_demand_for_deadline)" if short > 0 else None


def _short_of_deadline(facts: Facts, slots: Slots, now: float) -> int:
    """How many nodes the deadline needs beyond those that are there or may still come."""
    if not facts.spec.nodes.on_demand_for_deadline:
        return 0
    return nodes_needed(facts, now) - len(slots.held) - len(slots.pending)


def _pins(facts: Facts, slots: Slots) -> Pins:
    """By what the run has trained on; where it has not yet, by what is there, or may be bought at any moment."""
    trained = sorted((node for node in facts.nodes if node.trained), key=lambda node: node.billed_from or 0.0)
    present = [*slots.held, *slots.pending]
    return Pins(
        device=_device(facts, [*trained, *present]) if keeps_device(facts.spec) else None,
        zone=present[0].offer.zone if present and shares_zone(facts.spec) else None,
    )


def _device(facts: Facts, nodes: Iterable[NodeFacts]) -> str | None:
    device = next((node.offer.device for node in nodes if node.offer.device is not None), None)
    training = facts.spec.training
    if training is not None and training.on_mismatch == "continue" and device not in _devices(facts.offers):
        return None  # the run was moved to other machines, and may go on there, marked inexact
    return device


def _pinned_by(spec: Spec, pins: Pins, offer: Offer) -> Pins:
    """The first choice binds the others that are made at the same moment."""
    if keeps_device(spec) and pins.device is None:
        pins = replace(pins, device=offer.device)
    return replace(pins, zone=offer.zone) if shares_zone(spec) and pins.zone is None else pins


def _fitting(facts: Facts, market: Market, pins: Pins, bad: set[OfferKey], *, or_bad: bool = True) -> tuple[Offer, ...]:
    """Best first, without those that are `bad`; `or_bad`: unless there are no others."""
    able = [offer for offer in facts.offers if offer.market is market and offer.key not in facts.resting]
    able = [offer for offer in able if pins.zone in (None, offer.zone) and pins.device in (None, offer.device)]
    able = [offer for offer in able if offer.key not in bad] or (able if or_bad else [])
    if not able:
        return ()
    # Where no node has decided it yet, the best offer does.
    best = _pinned_by(facts.spec, pins, able[0])
    return tuple(offer for offer in able if best.zone in (None, offer.zone) and best.device in (None, offer.device))[
        :MOST_CANDIDATES
    ]


def _devices(offers: Iterable[Offer]) -> set[str]:
    return {offer.device for offer in offers if offer.device is not None}


def _why_nothing(facts: Facts, pins: Pins) -> str:
    kept = [
        f"only {pins.device}, so that the run stays exact" if pins.device else "",
        f"only {pins.zone}" * bool(pins.zone),
    ]
    limits = "".join(f" ({text})" for text in kept if text)
    fitting = [o for o in facts.offers if pins.zone in (None, o.zone) and pins.device in (None, o.device)]
    if not fitting:
        return f"{facts.spec.provider.name} has no offer that fits{limits}"
    rests = sorted((facts.resting[offer.key] for offer in fitting if offer.key in facts.resting), key=lambda r: r.until)
    named = [f"{r.refusal.instance_type} in {r.refusal.zone}, {r.refusal.market}: {r.refusal.message}" for r in rests]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    at = datetime.fromtimestamp(rests[0].until, UTC).strftime("%H:%M:%S") if rests else ""
    return f"all offers were refused{limits}, the next is asked again at {at} UTC ({'; '.join(named[:_NAMED])}{more})"
