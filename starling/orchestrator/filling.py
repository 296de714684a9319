"""Filling the run's slots: which nodes to want, which attempts to make, which launches to repeat, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starling.infra import layout
from starling.infra.records import NodeIntent
from starling.orchestrator.actions import Action, Authorise, Launch, NextAttempt, Want
from starling.orchestrator.capacity import Choice, choose
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.limits import authorised_until
from starling.orchestrator.slots import Need, slots_of

NAMED = 8
"""So many nodes or slots are named of which the same is said."""
_STEP_SECONDS = 5.0
"""By how much an authorised time is moved at least ..."""
_STEP_SHARE = 0.1
"""... and, if it is to be later, by such a part of what is left of it: the end of a budget moves away all the time, as
nodes cost less than they might."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """What has to be done about the slots."""

    actions: tuple[Action, ...]
    said: tuple[str, ...]
    """What is being done, and what is waited for; empty: every slot is held."""


def fill(facts: Facts, now: float) -> Filling:
    """Fill every slot; let every node know until when it may run."""
    slots = slots_of(facts, now)
    choices = choose(facts, slots, now)
    wanted = [_intent(facts, choice, now) for choice in choices if choice.candidates]
    until = authorised_until(facts, wanted, now)
    asked = [
        _ask(facts, choice.need, intent.but(authorised_until=until), choice.why)
        for choice, intent in zip((c for c in choices if c.candidates), wanted, strict=True)
    ]
    due = [node for node in slots.pending if now >= facts.launch_after.get(node.node, 0.0)]
    launches = [Launch(node=node.node) for node in due] + [Launch(node=word.intent.node) for word in asked]
    said = [
        *_together((word.intent.node, word.reason) for word in asked),
        *_together((node.node, "wanted but not launched") for node in slots.pending),
        *_together((f"slot {slot} waits", "its last nodes ended soon after they began") for slot in slots.delayed),
        *_together((f"slot {c.need.slot} waits", c.why) for c in choices if not c.candidates and c.why),
    ]
    authorisations = _authorisations(facts, until, {word.intent.node for word in asked}, now)
    return Filling(actions=(*authorisations, *asked, *launches), said=tuple(said))


def _intent(facts: Facts, choice: Choice, now: float) -> NodeIntent:
    """Of a new node, or of the same one with another attempt."""
    need, holder = choice.need, choice.need.holder
    if holder is not None:
        attempt = holder.intent.attempt + 1
        return holder.intent.but(attempt=attempt, candidates=choice.candidates, offer=choice.candidates[0])
    generation = need.chain[-1].intent.generation + 1 if need.chain else 0
    return NodeIntent(
        node=layout.node_id(facts.run.run, need.slot, generation),
        run=facts.run.run,
        incarnation=facts.run.incarnation,
        slot=need.slot,
        generation=generation,
        offer=choice.candidates[0],
        candidates=choice.candidates,
        wanted_at=now,
        authorised_until=None,
    )


def _ask(facts: Facts, need: Need, intent: NodeIntent, why: str) -> Want | NextAttempt:
    more = f"; {why}" if why else ""
    if need.holder is None:
        return Want(intent=intent, reason=_why_replace(facts, need.chain) + more)
    return NextAttempt(intent=intent, reason=f"attempt {intent.attempt}, the one before was refused{more}")


def _together(said: Iterable[tuple[str, str]]) -> list[str]:
    """(of whom, what) -> one line for all of whom the same is said."""
    whom: dict[str, list[str]] = {}
    for name, what in said:
        whom.setdefault(what, []).append(name)
    return [f"{_listed(names)}: {what}" for what, names in whom.items()]


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _why_replace(facts: Facts, chain: tuple[NodeFacts, ...]) -> str:
    before = next((node for node in reversed(chain) if node.intent.incarnation == facts.run.incarnation), None)
    if before is None:
        return "the spec asks for it"
    return f"replaces {before.node}, {_fate(before)}"


def _fate(node: NodeFacts) -> str:
    if node.intent.gone_reason:
        return f"gone: {node.intent.gone_reason}"
    if node.intent.terminate:
        return f"released: {node.intent.terminate.reason}"
    if node.status is not None and node.status.unfit:
        return f"unfit: {node.status.unfit}"
    if node.announced:
        return "announced to be taken"
    if node.advised and node.counts:
        return "which may be taken (a rebalance was recommended)"
    return "which is leaving" if node.up else "which ended"


def _authorisations(facts: Facts, until: float | None, asked: set[str], now: float) -> list[Action]:
    """Sooner as soon as it matters, so that new nodes are paid for; later only when it is worth a write."""
    changed: list[Action] = []
    for node in facts.current:
        if node.gone or node.intent.terminate is not None or node.node in asked:
            continue
        before = node.intent.authorised_until
        if before is None or until is None:
            moved = before != until
        else:
            later = max(_STEP_SECONDS, _STEP_SHARE * (before - now))
            moved = until < before - _STEP_SECONDS or until > before + later
        if moved:
            changed.append(Authorise(node=node.node, until=until))
    return changed
