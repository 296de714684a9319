"""Who holds the run's slots, and which of them need a machine bought. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starling.infra.records import NodeState, RunRecord
from starling.orchestrator.facts import Facts, NodeFacts, by_slot
from starling.orchestrator.setbacks import launch_not_before


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A slot for which offers have to be chosen."""

    slot: int
    since: float
    """When it went unfilled; infinity: it is not, but who holds it may be taken."""
    holder: NodeFacts | None
    """The node that is wanted, of which every attempt so far was refused; None: there is no such node yet."""
    chain: tuple[NodeFacts, ...]
    """All nodes the slot ever had, oldest first."""

    @property
    def spare(self) -> bool:
        """The slot is held: another machine is worth having only if it is less likely to be taken."""
        return self.since == math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """Every slot of a run is in one of these."""

    held: tuple[NodeFacts, ...]
    """By nodes that were bought."""
    pending: tuple[NodeFacts, ...]
    """By nodes whose attempt may still succeed."""
    needs: tuple[Need, ...]
    delayed: tuple[int, ...]
    """Slots whose last nodes ended soon after they began: it is too early for the next."""


def slots_of(facts: Facts, now: float) -> Slots:
    """Where every slot stands."""
    held, pending, needs, delayed = [], [], [], []
    ever, own = by_slot(facts.nodes), by_slot(facts.current)
    for slot in range(facts.spec.nodes.max):
        chain = own.get(slot, [])
        holders = [node for node in chain if node.counts]
        at_risk = holders[0] if holders and holders[0].advised else None
        holder = holders[-1] if holders else None
        if holder is not None and not holder.never_seen:
            held.append(holder)
            if holder is at_risk and holder.trained and now >= launch_not_before(chain):
                needs.append(Need(slot=slot, since=math.inf, holder=None, chain=tuple(ever[slot])))
        elif holder is not None and facts.refused.get(holder.node) != holder.intent.attempt:
            pending.append(holder)
        elif holder is None and now < launch_not_before(chain):
            delayed.append(slot)
        else:
            since = _unfilled_since(chain, facts.run) if at_risk is None else math.inf
            needs.append(Need(slot=slot, since=since, holder=holder, chain=tuple(ever.get(slot, ()))))
    return Slots(held=tuple(held), pending=tuple(pending), needs=tuple(needs), delayed=tuple(delayed))


def _unfilled_since(chain: list[NodeFacts], run: RunRecord) -> float:
    """The loss of the last node that was bought for it in this incarnation, or the incarnation's beginning."""
    bought = [node for node in chain if not node.never_seen]
    began = run.resumed_at if run.resumed_at is not None else run.created_at
    return _lost_at(bought[-1], began) if bought else began


def _lost_at(node: NodeFacts, unknown: float) -> float:
    """The first sign that a node will not hold its slot any longer."""
    signs = (
        node.ended_at,
        node.intent.terminate.at if node.intent.terminate is not None else None,
        node.notice.seen_at if node.notice is not None and node.announced else None,
        node.status.at
        if node.status is not None and node.status.state in (NodeState.LEAVING, NodeState.ENDED)
        else None,
    )
    return min((sign for sign in signs if sign is not None), default=unknown)
