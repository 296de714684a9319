"""The controller's mind: `decide(facts, now)` says what to do and why. No I/O, no state of its own.

What must never happen, and what prevents it:

* Two machines for one (slot, generation): the launch is idempotent in it, at the provider.
* A slot filled twice: a new generation is created only when no node that counts is left in the slot, and a
  create-only put picks one winner among racing controllers.
* A machine released without a committed word: Terminate commits first.
* A machine nobody knows: it has an intent before it is launched; what has none is a stray and is ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from starling.infra.errors import Misconfigured, NotAuthorised, ProviderError
from starling.infra.records import RunState, Verdict
from starling.orchestrator.actions import Action, Finish, Forget, GiveVerdict, RequestStop, Terminate
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.filling import fill
from starling.orchestrator.limits import limit_reached
from starling.orchestrator.needs import WAIT_LOOKS, WAIT_SECONDS, broken_need, waits_for
from starling.orchestrator.retries import Failed
from starling.orchestrator.setbacks import hopeless, last_traceback
from starling.orchestrator.upkeep import END_GRACE_SECONDS, upkeep

STOP_GRACE_SECONDS = 1500.0
"""How long nodes may take for the last step and checkpoint after a stop request; agents have a shorter limit."""
BUSY_SHARE = 0.5
"""Of the provider's usual pause between two looks: the pause after something has been done."""
NEEDS_THE_USER = (NotAuthorised, Misconfigured)
"""Errors that hardly ever go away by waiting."""
FORBIDDEN_SECONDS = 180.0
"""How long a permission must have been missing before it is believed to stay so: a new policy takes minutes to be known
everywhere in AWS, and the clock of a laptop that slept is soon set. A wrong setting stays wrong, and whoever made it
waits to be told: that is believed at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    reason: str
    """Why; stays the same as long as nothing changes."""
    look_again_in: float
    """Seconds."""


def decide(facts: Facts, now: float) -> Decision:
    """What to do at this moment."""
    actions = upkeep(facts, now)
    if facts.verdict is not None:
        return _wind_up(facts, facts.verdict, actions, now)
    if facts.run.stop is not None:
        return _stop(facts, facts.run.stop.reason, facts.run.stop.at, actions, now)
    if over := limit_reached(facts, now):
        stop = RequestStop(incarnation=facts.run.incarnation, reason=over)
        return _decision(facts, [*actions, stop], f"stopping: {over}")
    if why := broken_need(facts.run.run, facts.needs):
        verdict = GiveVerdict(incarnation=facts.run.incarnation, state=RunState.FAILED, reason=why)
        return _decision(facts, [*actions, verdict], f"giving up: {why}")
    if waiting := waits_for(facts.needs):
        pause = min(WAIT_SECONDS, WAIT_LOOKS * facts.pace.look)
        return Decision(actions=tuple(actions), reason=waiting, look_again_in=pause)
    seen_at = now if facts.seen_at is None else facts.seen_at
    if lost := hopeless(facts, seen_at) or _forbidden(facts, seen_at):
        verdict = GiveVerdict(
            incarnation=facts.run.incarnation, state=RunState.FAILED, reason=lost, traceback=last_traceback(facts)
        )
        return _decision(facts, [*actions, verdict], f"giving up: {lost}")
    if _may_not_look(facts, seen_at):
        return _decision(facts, actions, "nothing is bought before the provider says which machines there are")
    filling = fill(facts, now)
    held = f"{facts.spec.nodes.max} of {facts.spec.nodes.max} nodes are held"
    return _decision(facts, [*actions, *filling.actions], "; ".join(filling.said) or held)


def _decision(facts: Facts, actions: list[Action], reason: str) -> Decision:
    pause = facts.pace.look * (BUSY_SHARE if actions else 1.0)
    said = "; ".join([reason, *_standing_trouble(facts)])
    return Decision(actions=tuple(actions), reason=said, look_again_in=pause)


def _standing_trouble(facts: Facts) -> list[str]:
    """What the user has to put right, one of each kind."""
    found: dict[type[ProviderError], str] = {}
    for error in facts.trouble:
        if isinstance(error, NEEDS_THE_USER):
            found.setdefault(type(error), f"trying again every minute: {error}")
    return list(found.values())


def _forbidden(facts: Facts, seen_at: float) -> str | None:
    """Why no node can be had before the user has changed something, if none is left either."""
    if any(_is_left(node, seen_at) for node in facts.current):
        return None
    return next((str(failed.error) for failed in facts.hindrances if _stays(failed)), None)


def _stays(failed: Failed) -> bool:
    """Whether it does not go away by waiting, for all that is known."""
    if isinstance(failed.error, NotAuthorised):
        return failed.lasted >= FORBIDDEN_SECONDS
    return isinstance(failed.error, Misconfigured)


def _may_not_look(facts: Facts, seen_at: float) -> bool:
    """Whether machines could be bought whose loss nobody would notice: with none at work, that can wait."""
    forbidden = any(isinstance(failed.error, NEEDS_THE_USER) for failed in facts.hindrances)
    return forbidden and facts.listed_at is None and not any(_is_left(node, seen_at) for node in facts.current)


def _is_left(node: NodeFacts, seen_at: float) -> bool:
    """It may still save, or even finish, what it works on; one that is on its way out, too."""
    return not node.gone and (node.up or node.trains(seen_at) or (node.counts and not node.never_seen))


def _wind_up(facts: Facts, verdict: Verdict, actions: list[Action], now: float) -> Decision:
    """The incarnation is over: see every node end, clear up, finish."""
    reason = f"{verdict.state.value}: {verdict.reason}"
    actions = actions + _release(facts, now >= verdict.at + END_GRACE_SECONDS, f"the run is {verdict.state.value}")
    unknown = facts.listed_at is None and bool(facts.nodes)
    if unknown or facts.present or facts.strays or any(node.up for node in facts.nodes):
        return _decision(facts, actions, f"{reason}; waiting for its nodes to end")
    left = [Forget(node=node.node) for node in facts.nodes if node.machine is not None]
    return _decision(facts, [*left, Finish()], reason)


def _stop(facts: Facts, why: str, asked_at: float, actions: list[Action], now: float) -> Decision:
    """Agents read the stop request themselves; the controller sees to it that they do end."""
    actions = actions + _release(facts, now >= asked_at + STOP_GRACE_SECONDS, f"stop: {why}")
    if facts.present or facts.strays:
        return _decision(facts, actions, f"stopping: {why}; waiting for its nodes to end")
    verdict = GiveVerdict(incarnation=facts.run.incarnation, state=RunState.STOPPED, reason=why)
    return _decision(facts, [*actions, verdict], f"stopped: {why}")


def _release(facts: Facts, overdue: bool, reason: str) -> list[Action]:
    """Take back launches that have not happened, and, once time is up, end what runs."""
    return [
        Terminate(node=node.node, reason=reason)
        for node in facts.present
        if node.intent.terminate is None and (node.never_seen or (overdue and node.up))
    ]
