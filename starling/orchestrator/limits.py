"""Budget, deadline and duration: until when nodes may run, and when the run has to stop. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from starling.infra.records import NodeIntent
from starling.orchestrator.facts import Facts
from starling.orchestrator.ledger import cost, dearest_price
from starling.orchestrator.provider_sections import AwsSection

MARGIN_SECONDS = 90.0
"""A limit stops the run so long (and two steps) before it is reached, to leave time for the last checkpoint ..."""
MARGIN_SHARE = 0.15
"""... but never more than this share of what the limit allows in all. More than nodes keep for their own drain at the
end of their authorised time: they are to be stopped together, not to leave one by one and be replaced."""


def authorised_until(facts: Facts, wanted: Iterable[NodeIntent], now: float) -> float | None:
    """Until when every node may run, if these (new, or with new candidates) are bought besides those that are there.
    None: no limit is set.

    All nodes get the same time: the one at which they together would have spent the budget, if nothing else ends
    them before, each at the highest price that it may come to cost.
    """
    ends = [end for end, _ in _time_limits(facts)]
    rate = _highest_rate(facts, wanted)
    if facts.spec.limits.budget is not None and rate > 0:
        left = max(0.0, facts.spec.limits.budget - cost(facts.nodes, now))
        ends.append(now + left / rate * 3600)
    return min(ends, default=None)


def limit_reached(facts: Facts, now: float) -> str | None:
    """Why the run has to stop now, if it has to."""
    for end, reason in _time_limits(facts):
        if now >= stop_at(facts, end):
            return reason
    budget = facts.spec.limits.budget
    if budget is None:
        return None
    rate = _highest_rate(facts) / 3600
    margin = min(_drain_seconds(facts) * rate, MARGIN_SHARE * budget) if rate > 0 else 0.0
    if cost(facts.nodes, now) >= budget - margin:
        return f"the budget of ${budget:g} is spent (limits.budget)"
    return None


def stop_at(facts: Facts, end: float) -> float:
    """When the run is stopped so that it has ended at `end`."""
    return end - min(_drain_seconds(facts), MARGIN_SHARE * max(0.0, end - facts.begins_at))


def _drain_seconds(facts: Facts) -> float:
    progress = [node.status.progress for node in facts.current if node.status is not None and not node.gone]
    return MARGIN_SECONDS + 2 * max((p.step_seconds or 0.0 for p in progress if p is not None), default=0.0)


def _time_limits(facts: Facts) -> list[tuple[float, str]]:
    limits, found = facts.spec.limits, []
    if limits.deadline_at is not None:
        found.append((limits.deadline_at, f"the deadline {limits.deadline} is reached (limits.deadline)"))
    if limits.max_duration is not None and not facts.waiting:
        end = facts.begins_at + limits.max_duration
        began = "what it needs was done" if facts.needs else "it was created"
        found.append((end, f"{began} {limits.max_duration:g} s ago (limits.max_duration)"))
    return found


def _highest_rate(facts: Facts, wanted: Iterable[NodeIntent] = ()) -> float:
    """Dollars per hour that all nodes may come to cost that run or may come to run."""
    intents = {node.node: node.intent for node in facts.present} | {intent.node: intent for intent in wanted}
    highest = facts.spec.provider.max_price if isinstance(facts.spec.provider, AwsSection) else None
    return sum(dearest_price(intent, highest) for intent in intents.values())
