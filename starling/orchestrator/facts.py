"""What is known about a run at one moment: the input of every decision and of every report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starling.infra.errors import ProviderError
from starling.infra.providers.base import Machine, Pace
from starling.infra.records import (
    Failure,
    NodeIntent,
    NodeState,
    NodeStatus,
    Notice,
    NoticeKind,
    Offer,
    RunRecord,
    Verdict,
    more_urgent,
)
from starling.orchestrator.needs import NeedFacts, begins_at
from starling.orchestrator.rests import OfferKey, Rest
from starling.orchestrator.retries import Failed
from starling.orchestrator.spec import Spec

FRESH_SECONDS = 15.0
"""A heartbeat (one every 2 s) older than this does not show a working node any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """One node: the controller's word, the agent's word, and the provider's."""

    intent: NodeIntent
    status: NodeStatus | None = None
    machine: Machine | None = None
    heard_at: float | None = None
    """When this controller last saw the heartbeat move, by its own clock; None: it has not watched yet."""
    released_at: float | None = None
    """When this controller last had the provider end it, if it has."""

    @property
    def node(self) -> str:
        return self.intent.node

    @property
    def gone(self) -> bool:
        """Known, and recorded, to be gone."""
        return self.intent.gone_at is not None

    @property
    def up(self) -> bool:
        """Its machine runs, as far as the provider knows."""
        return self.machine is not None and self.machine.alive

    @property
    def never_seen(self) -> bool:
        """Wanted, but nothing shows that the provider ever started it."""
        return self.machine is None and self.status is None and self.intent.launched_at is None

    @property
    def offer(self) -> Offer:
        """What was bought, as far as is known: the machine itself may tell before the intent does."""
        if self.intent.instance_id is not None or self.machine is None:
            return self.intent.offer
        return candidate_of(self.intent, self.machine) or self.intent.offer

    @property
    def notice(self) -> Notice | None:
        """That it will be taken, or may be: from its agent, or from the provider itself."""
        told = self.status.notice if self.status is not None else None
        found = self.machine.notice if self.machine is not None else None
        return more_urgent(told, found) if found is not None else told

    @property
    def announced(self) -> bool:
        """It will be taken."""
        return self.notice is not None and self.notice.kind is NoticeKind.INTERRUPTION

    @property
    def taken(self) -> bool:
        """The provider has taken its machine, or has said that it will: a shortage, which proves nothing against the
        node."""
        return self.intent.taken or self.announced or (self.machine is not None and self.machine.taken)

    @property
    def advised(self) -> bool:
        """It may be taken, more likely than others: a rebalance was recommended. That may be hours ahead, or come to
        nothing."""
        return self.notice is not None and self.notice.kind is NoticeKind.REBALANCE

    @property
    def trained(self) -> bool:
        """It was of use: it has been part of a round, or has started the user's script."""
        progress = self.status.progress if self.status is not None else None
        return progress is not None and progress.started

    @property
    def counts(self) -> bool:
        """Fills its slot: works, or is on its way to, and nothing says that it will go."""
        status = self.status
        parting = status is not None and (
            status.unfit is not None or status.ended is not None or status.state in (NodeState.LEAVING, NodeState.ENDED)
        )
        dead = self.machine is not None and not self.machine.alive
        word = self.intent.terminate or self.intent.leave
        return not (self.gone or word or parting or self.announced or dead)

    @property
    def ended_at(self) -> float | None:
        """When it ended, if it has."""
        if self.intent.gone_at is not None:
            return self.intent.gone_at
        if self.status is not None and self.status.ended is not None:
            return self.status.ended.at
        return self.machine.ended_at if self.machine and not self.machine.alive else None

    @property
    def billed_from(self) -> float | None:
        """When its bill starts; None if it never started."""
        if self.intent.launched_at is not None:
            return self.intent.launched_at
        if self.machine is not None and self.machine.launched_at is not None:
            return self.machine.launched_at
        return self.status.booted_at if self.status else None

    def ready(self, now: float) -> bool:
        """It trains, or could at once; and said so lately."""
        status = self.status
        able = status is not None and status.state in (NodeState.JOINING, NodeState.TRAINING)
        return able and not self.gone and status is not None and now - status.at < FRESH_SECONDS

    def trains(self, now: float) -> bool:
        """It is part of a round, and said so lately."""
        status = self.status
        return (
            status is not None
            and not self.gone
            and status.state is NodeState.TRAINING
            and now - status.at < FRESH_SECONDS
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """One look at a run."""

    run: RunRecord
    spec: Spec
    verdict: Verdict | None
    nodes: tuple[NodeFacts, ...]
    """Every node the run ever had, by slot and generation."""
    needs: tuple[NeedFacts, ...] = ()
    """The runs that must be done before this one begins."""
    strays: tuple[Machine, ...] = ()
    """Machines of this run that run without an intent."""
    offers: tuple[Offer, ...] = ()
    failures: tuple[Failure, ...] = ()
    """Of the current incarnation, oldest first."""
    pace: Pace = field(default_factory=Pace)
    """The provider's."""
    listed_at: float | None = None
    """When the provider was last asked for its machines; None: it has not told yet, so a missing machine means
    nothing."""
    seen_at: float | None = None
    """When the store was read for this, by the controller's clock; what came after it is not in here. None: nobody
    watches."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Nodes never launched -> the newest attempt that failed for certain."""
    resting: Mapping[OfferKey, Rest] = field(default_factory=dict)
    """Offers that were refused lately."""
    launch_after: Mapping[str, float] = field(default_factory=dict)
    """Nodes whose launch failed without an answer -> when to try the same again."""
    unanswered: Mapping[str, float] = field(default_factory=dict)
    """Nodes whose launch has failed with ProviderUnavailable and nothing else -> since when."""
    trouble: tuple[ProviderError, ...] = ()
    """What the provider could not do when it was last asked."""
    hindrances: tuple[Failed, ...] = ()
    """Of these, what keeps nodes from being bought, and for how long it has."""

    @property
    def buying(self) -> bool:
        """Whether nodes may still be launched."""
        return self.verdict is None and self.run.stop is None and not self.waiting

    @property
    def waiting(self) -> bool:
        """Whether runs that this one needs are not done yet."""
        return not all(need.done for need in self.needs)

    @property
    def begins_at(self) -> float:
        """From when on it may train; as long as it waits for others, none of its own time passes."""
        return begins_at(self.run.created_at, self.needs)

    @property
    def current(self) -> list[NodeFacts]:
        """Nodes of the current incarnation."""
        return [node for node in self.nodes if node.intent.incarnation == self.run.incarnation]

    def silence(self, node: NodeFacts) -> float:
        """Seconds between two readings of the store, through all of which the node's heartbeat has not moved. How long
        a look takes besides, however slow the provider is, says nothing about a node."""
        return self.seen_at - node.heard_at if self.seen_at is not None and node.heard_at is not None else 0.0

    @property
    def present(self) -> list[NodeFacts]:
        """Nodes not recorded as gone, whatever incarnation they belong to."""
        return [node for node in self.nodes if not node.gone]


def by_slot(nodes: Iterable[NodeFacts]) -> dict[int, list[NodeFacts]]:
    """Slot -> its nodes, in the order given."""
    found: dict[int, list[NodeFacts]] = {}
    for node in nodes:
        found.setdefault(node.intent.slot, []).append(node)
    return found


def candidate_of(intent: NodeIntent, machine: Machine) -> Offer | None:
    """Which of an intent's candidates a machine is; None if it is none of them."""
    return next((offer for offer in intent.candidates or (intent.offer,) if _is_bought_as(machine, offer)), None)


def _is_bought_as(machine: Machine, offer: Offer) -> bool:
    known = ((machine.instance_type, offer.instance_type), (machine.zone, offer.zone), (machine.market, offer.market))
    return all(told is None or told == offered for told, offered in known)
