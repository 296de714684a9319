"""Nodes that end soon after they began: how long to wait before the next one, and when to give up. Pure.

All of it is read from the nodes' records, so that a restarted controller waits as its predecessor would have.
"""

from __future__ import annotations

from collections.abc import Sequence

from starling.infra.records import Failure, Offer
from starling.orchestrator.facts import Facts, NodeFacts, by_slot
from starling.orchestrator.rests import OfferKey

QUICK_SECONDS = 120.0
"""A node that ends within this time of its launch, and untrained, ended quickly."""
FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 300.0
UNFIT_LIMIT = 3
"""So many unfit nodes in a row, and none that trains, end the run."""
QUICK_LIMIT = 3
"""So many nodes in a row of one slot whose agents themselves gave up end the run."""
LOST_LIMIT = 10
"""So many nodes in a row of one slot that ended quickly, for whatever reason, end the run."""
SHUN_SECONDS = 900.0
"""How long another offer is preferred to the one of a node that came to nothing."""
FATAL_SECONDS = 10.0
"""How long the trainer has to give the verdict on a fatal error itself."""


def launch_not_before(chain: Sequence[NodeFacts]) -> float:
    """The earliest time for the next launch in a slot whose nodes of this incarnation, oldest first, are these; 0 if
    at once. The first quick end costs no wait."""
    streak = _streak(chain)
    if len(streak) < 2:
        return 0.0
    wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (len(streak) - 2))
    return (streak[0].ended_at or 0.0) + wait


def shunned(facts: Facts, now: float) -> set[OfferKey]:
    """Offers that were bought, or asked for in vain, lately, and of which nothing was heard, or whose machines were
    taken at once or are likely to be: better not the same again at once, if there is another."""
    came_to_nothing = {
        _tried(node).key
        for node in facts.current
        if not node.counts and _came_to_nothing(node) and now < _given_up_at(node) + SHUN_SECONDS
    }
    at_risk = {
        node.offer.key
        for node in facts.current
        if node.advised and node.notice is not None and (node.counts or now < node.notice.seen_at + SHUN_SECONDS)
    }
    return came_to_nothing | at_risk


def hopeless(facts: Facts, now: float) -> str | None:
    """Why new nodes would not help, if they would not."""
    if any(node.trains(now) for node in facts.current):
        return None
    if fatal := _fatal(facts, now):
        return fatal.error
    ended = sorted(
        (
            node
            for node in facts.current
            if not node.counts and not _taken_early(node) and (node.ended_at is not None or _unfit(node))
        ),
        key=lambda node: node.intent.wanted_at,
    )
    last = ended[-UNFIT_LIMIT:]
    if len(last) == UNFIT_LIMIT and all(_unfit(node) for node in last):
        return f"{UNFIT_LIMIT} nodes in a row were unfit, the last because: {_unfit(last[-1])}"
    for slot, chain in by_slot(facts.current).items():
        quick = _streak(chain) if slot < facts.spec.nodes.max else []
        streak = [node for node in quick if not _alone(facts, node) and not _taken_early(node)]
        words = [
            node.status.ended.reason for node in streak if node.status is not None and node.status.ended is not None
        ]
        if len(streak) >= LOST_LIMIT or (len(streak) >= QUICK_LIMIT and len(words) >= QUICK_LIMIT):
            why = words[0] if words else streak[0].intent.gone_reason or "without a word"
            return f"{len(streak)} nodes in a row ended soon after they began, the last because: {why}"
    return None


def last_traceback(facts: Facts) -> str | None:
    """What the newest failure of the run's own code left behind."""
    return next((failure.traceback for failure in reversed(facts.failures) if failure.traceback), None)


def _fatal(facts: Facts, now: float) -> Failure | None:
    """An error that trying again cannot help, if nobody who is nearer to it has given the verdict in time."""
    return next((f for f in reversed(facts.failures) if f.fatal and now - f.at > FATAL_SECONDS), None)


def _streak(chain: Sequence[NodeFacts]) -> list[NodeFacts]:
    """The newest nodes of a slot that ended quickly, newest first, up to the first that did not. What was never bought
    is none."""
    streak: list[NodeFacts] = []
    for node in reversed([node for node in chain if node.billed_from is not None]):
        if not _quick(node):
            break
        streak.append(node)
    return streak


def _quick(node: NodeFacts) -> bool:
    """Whether a node ended without having been of use: soon after it began, or at any time by its agent's own word, or
    without any, or because it was taken."""
    if node.ended_at is None or node.billed_from is None or node.trained or node.counts:
        return False
    if node.status is None or node.taken:
        return True  # it ran, and was never heard of, or not for long
    gave_up = node.status is not None and node.status.ended is not None
    if gave_up and node.intent.terminate is None:
        return True
    return node.ended_at - node.billed_from < QUICK_SECONDS


def _taken_early(node: NodeFacts) -> bool:
    """Before it was of use: a shortage, for which the next one waits, and which says nothing of how that will fare."""
    return node.taken and not node.trained


def _came_to_nothing(node: NodeFacts) -> bool:
    return _taken_early(node) if node.taken else node.status is None


def _alone(facts: Facts, node: NodeFacts) -> bool:
    """Its agent gave up after a while because there were too few nodes to train: a shortage, which is waited for."""
    status = node.status
    if status is None or status.ended is None or status.ended.at - status.booted_at < QUICK_SECONDS:
        return False
    end = status.ended.at
    company = [other for other in facts.current if other is not node and _was_up(other, end - QUICK_SECONDS, end)]
    return 1 + len(company) < facts.spec.nodes.min


def _was_up(node: NodeFacts, start: float, end: float) -> bool:
    """Its agent was there at some moment of this time."""
    booted_at = node.status.booted_at if node.status is not None else None
    return booted_at is not None and booted_at <= end and (node.ended_at is None or node.ended_at >= start)


def _tried(node: NodeFacts) -> Offer:
    """What was bought. Of a launch without an answer, where one candidate at a time is asked: each slot begins with
    another one (`placed`, `infra/providers/ssh/provider.py`)."""
    candidates = node.intent.candidates
    return candidates[node.intent.slot % len(candidates)] if candidates and node.billed_from is None else node.offer


def _given_up_at(node: NodeFacts) -> float:
    if node.intent.terminate is not None:
        return node.intent.terminate.at
    return node.ended_at if node.ended_at is not None else node.intent.wanted_at


def _unfit(node: NodeFacts) -> str | None:
    return node.status.unfit if node.status is not None else None
