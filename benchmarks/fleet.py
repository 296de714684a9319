"""Made-up fleets: what a controller would see of many runs with many nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from starling.infra import layout
from starling.infra.providers.base import Machine
from starling.infra.records import (
    Market,
    NodeEnd,
    NodeIntent,
    NodeState,
    NodeStatus,
    Notice,
    NoticeKind,
    Offer,
    Progress,
    RunRecord,
)
from starling.orchestrator.facts import Facts, NodeFacts
from starling.orchestrator.spec import Spec

NOW = 1_800_000_000.0
BEGAN = NOW - 86_400.0
OFFER = Offer(provider="fake", instance_type="g5.xlarge", zone="a", market=Market.SPOT, price_per_hour=0.4, gpus=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How many runs, how many nodes each, and how many nodes before each of those."""

    runs: int
    nodes: int
    past: int

    @property
    def title(self) -> str:
        return f"{self.runs:,} {'run' if self.runs == 1 else 'runs'} of {self.nodes:,} nodes"

    @property
    def records(self) -> int:
        return self.runs * self.nodes * (1 + self.past)

    def smaller(self, factor: int) -> Shape:
        """The same with fewer runs, or fewer nodes if there is only one."""
        if self.runs >= factor:
            return replace(self, runs=self.runs // factor)
        return replace(self, nodes=max(1, self.nodes // factor))


def fleet(shape: Shape) -> list[Facts]:
    """One `Facts` a run, as a look at the store and the provider would give them."""
    return [_facts(number, shape) for number in range(shape.runs)]


def _facts(number: int, shape: Shape) -> Facts:
    run = f"run-{number}"
    spec = Spec.model_validate(
        {
            "name": "bench",
            "task": "task:Own",
            "code": ".",
            "training": {
                "epochs": 55,
                "global_batch": 16_384,
                "virtual_shards": 16_384,
                "optimizer": {"name": "sgd", "lr": 0.1},
            },
            "nodes": {"min": 1, "max": shape.nodes},
            "limits": {"budget": 1_000_000.0, "max_duration": "30d"},
        }
    )
    nodes = [node for slot in range(shape.nodes) for node in _slot(run, slot, shape.past, number * shape.nodes + slot)]
    record = RunRecord(run=run, created_at=BEGAN)
    return Facts(
        run=record, spec=spec, verdict=None, nodes=tuple(nodes), offers=(OFFER,), listed_at=NOW - 1, seen_at=NOW
    )


def _slot(run: str, slot: int, past: int, count: int) -> Iterator[NodeFacts]:
    """Past nodes that were taken, then the present one, the `count`th of the fleet."""
    for generation in range(past + 1):
        intent = _intent(run, slot, generation)
        status = _status(intent)
        if generation < past:
            ended = intent.wanted_at + 3600
            intent = intent.but(gone_at=ended, gone_reason="taken")
            yield NodeFacts(intent=intent, status=status.but(ended=NodeEnd(at=ended, reason="interruption notice")))
        else:
            yield _present(intent, status, count % 100)


def _present(intent: NodeIntent, status: NodeStatus, kind: int) -> NodeFacts:
    machine = Machine(node=intent.node, instance_id=f"i-{intent.node}", alive=kind != 1, launched_at=intent.launched_at)
    heard_at = NOW - (300.0 if kind == 2 else 1.0)
    if kind == 0:
        notice = Notice(id="n", kind=NoticeKind.INTERRUPTION, seen_at=NOW - 5, takes_effect_at=NOW + 115)
        status = status.but(notice=notice, state=NodeState.LEAVING)
    return NodeFacts(intent=intent, status=status, machine=machine, heard_at=heard_at)


def _intent(run: str, slot: int, generation: int) -> NodeIntent:
    wanted_at = BEGAN + 7200.0 * generation
    return NodeIntent(
        node=layout.node_id(run, slot, generation),
        run=run,
        incarnation=0,
        slot=slot,
        generation=generation,
        offer=OFFER,
        wanted_at=wanted_at,
        authorised_until=NOW + 86_400.0,
        launched_at=wanted_at + 40,
        instance_id=f"i-{run}-{slot}-{generation}",
    )


def _status(intent: NodeIntent) -> NodeStatus:
    progress = Progress(at=NOW, step=500, total_steps=1000, epoch=5, round=3, world_size=10, rank=0, step_seconds=0.5)
    return NodeStatus(
        node=intent.node,
        run=intent.run,
        state=NodeState.TRAINING,
        at=NOW - 1,
        booted_at=intent.wanted_at + 60,
        address="10.0.0.1",
        instance_id="i-0",
        progress=progress,
    )
