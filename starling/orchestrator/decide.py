"""The controller's mind: `decide(facts, now)` says what to do and why. No I/O, no state of its own.

What must never happen, and what prevents it:

* Two machines for one (slot, generation): the launch is idempotent in it, at the provider.
* A slot filled twice: a new generation is created only when no node that counts is left in the slot, and a
  create-only put picks one winner among racing controllers.
* A machine released without a committed word: Terminate commits first.
* A machine nobody knows: it has an intent before it is launched; what has none is a stray and is ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starling.infra import layout
from starling.infra.providers.base import Machine
from starling.infra.records import Market, NodeIntent, NodeStatus, Offer, RunState, Termination, Verdict
from starling.orchestrator.actions import (
    Action,
    Authorise,
    Finish,
    Forget,
    GiveVerdict,
    Launch,
    RecordGone,
    RecordLaunched,
    RequestStop,
    Terminate,
    TerminateStray,
)
from starling.orchestrator.facts import Facts, NodeFacts, by_slot
from starling.orchestrator.limits import authorised_until, limit_reached
from starling.orchestrator.setbacks import hopeless, last_traceback, launch_not_before

SILENT_SECONDS = 60.0
"""A machine whose agent has not been heard for so long is replaced."""
BOOT_SECONDS = 600.0
"""How long a machine may take from its launch to its agent's first word."""
END_GRACE_SECONDS = 45.0
"""How long a node may take to end itself once it knows that it should."""
STOP_GRACE_SECONDS = 1500.0
"""How long nodes may take for the last step and checkpoint after a stop request; agents have a shorter limit."""
SETTLE_SECONDS = 5.0
"""How long a machine that was never seen may still turn up after nobody may launch it any more."""
BUSY_SECONDS = 0.5
CALM_SECONDS = 1.0

_LOWER_SECONDS = 5.0
_RAISE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    reason: str
    """Why; stays the same as long as nothing changes."""
    look_again_in: float
    """Seconds."""


def decide(facts: Facts, now: float) -> Decision:
    """What to do at this moment."""
    upkeep = [*_records(facts, now), *_endings(facts, now), *_stray_endings(facts, now)]
    if facts.verdict is not None:
        return _wind_up(facts, facts.verdict, upkeep, now)
    if facts.run.stop is not None:
        return _stop(facts, facts.run.stop.reason, facts.run.stop.at, upkeep, now)
    if over := limit_reached(facts, now):
        return _decision([*upkeep, RequestStop(incarnation=facts.run.incarnation, reason=over)], f"stopping: {over}")
    if lost := hopeless(facts, now):
        verdict = GiveVerdict(
            incarnation=facts.run.incarnation, state=RunState.FAILED, reason=lost, traceback=last_traceback(facts)
        )
        return _decision([*upkeep, verdict], f"giving up: {lost}")
    return _keep_going(facts, upkeep, now)


def _decision(actions: list[Action], reason: str) -> Decision:
    return Decision(actions=tuple(actions), reason=reason, look_again_in=BUSY_SECONDS if actions else CALM_SECONDS)


def _records(facts: Facts, now: float) -> Iterator[Action]:
    """Facts worth writing down."""
    for node in facts.present:
        machine = node.machine
        if machine is not None and machine.launched_at is not None and node.intent.launched_at is None:
            yield RecordLaunched(node=node.node, at=machine.launched_at)
        if gone := _found_gone(node, now):
            yield gone


def _found_gone(node: NodeFacts, now: float) -> RecordGone | None:
    machine, intent, status = node.machine, node.intent, node.status
    said = status is not None and status.ended is not None
    if machine is not None:
        at = machine.ended_at if machine.ended_at is not None else now
        reason = _why_ended(machine, status)
        return None if machine.alive else RecordGone(node=node.node, at=at, reason=reason, agent_said_so=said)
    if node.never_seen:
        settled = intent.terminate is not None and now >= intent.terminate.at + SETTLE_SECONDS
        reason = "it was never launched"
        return RecordGone(node=node.node, at=intent.wanted_at, reason=reason, agent_said_so=False) if settled else None
    if not (_silent(node, now) or said):
        return None
    last_word = status.at if status else intent.launched_at or now
    reason = "the provider does not know its machine any more"
    return RecordGone(node=node.node, at=last_word, reason=reason, agent_said_so=said)


def _why_ended(machine: Machine, status: NodeStatus | None) -> str:
    if status is not None and status.ended is not None:
        return status.ended.reason
    return machine.ended_reason or "its machine ended"


def _silent(node: NodeFacts, now: float) -> bool:
    return node.heard_at is not None and now - node.heard_at > SILENT_SECONDS


def _endings(facts: Facts, now: float) -> Iterator[Action]:
    """Machines that run and should not."""
    for node in facts.nodes:
        if node.up and (reason := _why_end(facts, node, now)):
            yield Terminate(node=node.node, reason=reason)


def _why_end(facts: Facts, node: NodeFacts, now: float) -> str | None:
    intent, status = node.intent, node.status
    launched = intent.launched_at or (node.machine.launched_at if node.machine else None)
    if intent.terminate is not None:
        return intent.terminate.reason
    if node.gone:
        return "it was taken for gone, and its slot was filled again"
    if intent.incarnation < facts.run.incarnation:
        return f"it belongs to incarnation {intent.incarnation}; the run is at {facts.run.incarnation}"
    if intent.authorised_until is not None and now > intent.authorised_until + END_GRACE_SECONDS:
        return "it outlived its authorisation"
    if status is None:
        late = launched is not None and now > launched + BOOT_SECONDS and _silent(node, now)
        return f"its agent did not report within {BOOT_SECONDS:g} s" if late else None
    if status.ended is not None:
        outlived = now > status.ended.at + END_GRACE_SECONDS
        return f"its agent ended ({status.ended.reason}) but its machine did not" if outlived else None
    return f"its agent was silent for {SILENT_SECONDS:g} s" if _silent(node, now) else None


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
            offer=_stray_offer(facts),
            wanted_at=now,
            authorised_until=now,
            launched_at=machine.launched_at,
            terminate=Termination(at=now, reason=reason),
        )
        yield TerminateStray(intent=intent, reason=reason)


def _stray_offer(facts: Facts) -> Offer:
    """What a stray was bought as is unknown: the dearest thing we could have bought."""
    known = [*facts.offers, *(node.intent.offer for node in facts.nodes)]
    unknown = Offer(
        provider=facts.spec.provider.name,
        instance_type="unknown",
        zone="unknown",
        market=Market.SPOT,
        price_per_hour=0.0,
    )
    return max(known, key=lambda offer: offer.price_per_hour, default=unknown)


def _wind_up(facts: Facts, verdict: Verdict, upkeep: list[Action], now: float) -> Decision:
    """The incarnation is over: see every node end, clear up, finish."""
    reason = f"{verdict.state.value}: {verdict.reason}"
    actions = upkeep + _release(facts, now >= verdict.at + END_GRACE_SECONDS, f"the run is {verdict.state.value}")
    if facts.present or facts.strays or any(node.up for node in facts.nodes):
        return _decision(actions, f"{reason}; waiting for its nodes to end")
    left = [Forget(node=node.node) for node in facts.nodes if node.machine is not None]
    return _decision([*left, Finish()], reason)


def _stop(facts: Facts, why: str, asked_at: float, upkeep: list[Action], now: float) -> Decision:
    """Agents read the stop request themselves; the controller sees to it that they do end."""
    actions = upkeep + _release(facts, now >= asked_at + STOP_GRACE_SECONDS, f"stop: {why}")
    if facts.present or facts.strays:
        return _decision(actions, f"stopping: {why}; waiting for its nodes to end")
    verdict = GiveVerdict(incarnation=facts.run.incarnation, state=RunState.STOPPED, reason=why)
    return _decision([*actions, verdict], f"stopped: {why}")


def _release(facts: Facts, overdue: bool, reason: str) -> list[Action]:
    """Take back launches that have not happened, and, once time is up, end what runs."""
    return [
        Terminate(node=node.node, reason=reason)
        for node in facts.present
        if node.intent.terminate is None and (node.never_seen or (overdue and node.up))
    ]


def _keep_going(facts: Facts, upkeep: list[Action], now: float) -> Decision:
    """Fill every slot; let every node know until when it may run."""
    wanted: list[tuple[int, int, str]] = []
    again: list[Action] = []
    waiting: list[str] = []
    ever, own = by_slot(facts.nodes), by_slot(facts.current)
    for slot in range(facts.spec.nodes.max):
        chain = ever.get(slot, [])
        holder = next((node for node in own.get(slot, []) if node.counts), None)
        if holder is not None:
            if holder.never_seen and now >= facts.launch_after.get(holder.node, 0.0):
                again.append(Launch(intent=holder.intent, new=False, reason="it was wanted but not launched"))
            elif holder.never_seen:
                waiting.append(f"{holder.node} cannot be bought at present")
        elif now < launch_not_before(own.get(slot, [])):
            waiting.append(f"slot {slot} waits: its last nodes ended soon after they began")
        elif not facts.offers:
            waiting.append(f"slot {slot} waits: {facts.spec.provider.name} has no offer that fits")
        else:
            wanted.append((slot, chain[-1].intent.generation + 1 if chain else 0, _why_replace(facts, chain)))
    until = authorised_until(facts, facts.offers[:1] * len(wanted), now)
    launches = [_launch(facts, slot, generation, until, why, now) for slot, generation, why in wanted]
    actions = [*upkeep, *_authorisations(facts, until), *again, *launches]
    said = [f"{launch.intent.node}: {launch.reason}" for launch in launches] + waiting
    return _decision(actions, "; ".join(said) or f"{facts.spec.nodes.max} of {facts.spec.nodes.max} nodes are held")


def _why_replace(facts: Facts, chain: list[NodeFacts]) -> str:
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
    return "which is leaving" if node.up else "which ended"


def _launch(facts: Facts, slot: int, generation: int, until: float | None, reason: str, now: float) -> Launch:
    intent = NodeIntent(
        node=layout.node_id(facts.run.run, slot, generation),
        run=facts.run.run,
        incarnation=facts.run.incarnation,
        slot=slot,
        generation=generation,
        offer=facts.offers[0],
        wanted_at=now,
        authorised_until=until,
    )
    return Launch(intent=intent, new=True, reason=reason)


def _authorisations(facts: Facts, until: float | None) -> list[Action]:
    """Sooner as soon as it matters, so that new nodes are paid for; later only when it is worth a write."""
    changed: list[Action] = []
    for node in facts.current:
        if node.gone or node.intent.terminate is not None:
            continue
        before = node.intent.authorised_until
        if before is None or until is None:
            moved = before != until
        else:
            moved = until < before - _LOWER_SECONDS or until > before + _RAISE_SECONDS
        if moved:
            changed.append(Authorise(node=node.node, until=until))
    return changed
