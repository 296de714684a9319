"""A rehearsal of a run in the emulated region: what must be changed for it, and whether it kept its promises. Pure.

Time passes faster there: `scale` region seconds in a second. Durations of the spec that concern the market shrink with
it, and every second on a bill counts as so many.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starling.infra.records import Event, EventKind, Market
from starling.orchestrator.datasets import is_place
from starling.orchestrator.interruptions import recoveries
from starling.orchestrator.ledger import Bill
from starling.orchestrator.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One node of the ledger, in region time."""

    node: str
    instance_type: str
    zone: str
    market: str
    hours: float
    cost: float
    on_demand_cost: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a rehearsal."""

    rehearsed: Mapping[str, Any]
    """What `result` says of the run in the region."""
    undisturbed: Mapping[str, Any] | None
    """The same of the run on this machine, alone; None: it was not trained exactly, so there is nothing to compare."""
    ledger: Sequence[Line]
    interruptions: Mapping[str, int]
    """How many, by kind: notice, hard, lost, failure."""
    left: Sequence[Mapping[str, Any]]
    """What `gc` finds afterwards."""

    @property
    def cost(self) -> float:
        return sum(line.cost for line in self.ledger)

    @property
    def on_demand_cost(self) -> float:
        """All of it at the full price; where that is unknown, what was paid."""
        return sum(line.cost if line.on_demand_cost is None else line.on_demand_cost for line in self.ledger)

    @property
    def promises(self) -> dict[str, bool]:
        """What must hold -> whether it does."""
        kept = {"the run is done": self.rehearsed.get("state") == "done"}
        if self.undisturbed is not None:
            for name, what in (("weights_sha256", "weights"), ("state_sha256", "optimizer and schedule")):
                equal = self.rehearsed.get(name) == self.undisturbed.get(name) is not None
                kept[f"{what} are equal, to the last bit, to those of an undisturbed run"] = equal
        kept["`starling gc` finds nothing"] = not self.left
        return kept


def made_smaller(spec: Spec) -> list[str]:
    """Overrides for what the spec itself wants changed in a rehearsal."""
    return [f"{key}={json.dumps(value)}" for key, value in spec.rehearsal.items()]


def out_of_reach(spec: Spec) -> str | None:
    """Why the data of a spec cannot be had in a rehearsal, whose store is empty and whose S3 is not AWS'; None: it can,
    as far as is known without looking."""
    if spec.data is None:
        return None
    there = spec.data.source or (spec.data.dataset if is_place(spec.data.dataset) else None)
    if there is None:
        return f"the store of a rehearsal is empty: there is no dataset {spec.data.dataset} in it"
    return f"a rehearsal has an S3 of its own, in which there is no {there}" if there.startswith("s3://") else None


def in_region(spec: Spec, scale: float) -> list[str]:
    """Overrides for the run in the region."""
    changed = ["provider.name=aws", *_on_cpu(spec)]
    if spec.nodes.on_demand_after is not None:
        changed.append(f"nodes.on_demand_after={spec.nodes.on_demand_after / scale}")
    if spec.limits.budget is not None:
        changed.append(f"limits.budget={spec.limits.budget / scale}")
    if spec.limits.max_duration is not None:
        changed.append(f"limits.max_duration={spec.limits.max_duration / scale}")
    return changed


def undisturbed(spec: Spec) -> list[str]:
    """Overrides for the same run on one local node, without limits."""
    ranks = spec.nodes.ranks
    return [
        *("provider=local", "store=null", *_on_cpu(spec)),
        *("nodes.min=1", "nodes.max=1", "nodes.gpus_per_node=0", f"nodes.ranks_per_node={ranks}"),
        *("nodes.on_demand_after=null", "nodes.on_demand_for_deadline=false"),
        *("limits.budget=null", "limits.max_duration=null", "limits.deadline=null"),
    ]


def lines(bills: Iterable[Bill], scale: float) -> list[Line]:
    """The ledger in region time."""
    return [
        Line(
            node=bill.node,
            instance_type=bill.offer.instance_type,
            zone=bill.offer.zone,
            market=bill.offer.market.value,
            hours=bill.seconds * scale / 3600,
            cost=bill.cost * scale,
            on_demand_cost=None if bill.on_demand_cost is None else bill.on_demand_cost * scale,
        )
        for bill in bills
    ]


def interruptions_by_kind(events: Sequence[Event]) -> dict[str, int]:
    return dict(Counter(recovery.cause.kind for recovery in recoveries(events)))


def has_trained(events: Iterable[Event]) -> bool:
    """Whether the first step of the run has been done."""
    return any(event.kind in (EventKind.FIRST_STEP, EventKind.SCRIPT_ACTIVE) for event in events)


def on_demand_nodes(ledger: Iterable[Line]) -> int:
    return sum(line.market == Market.ON_DEMAND.value for line in ledger)


def _on_cpu(spec: Spec) -> list[str]:
    """The region's GPUs are names only."""
    return ["training.device=cpu"] if spec.training is not None else []
