"""How many nodes the deadline needs, judged by how fast the run has been so far. Pure."""

from __future__ import annotations

import math

from starling.infra.records import Progress
from starling.orchestrator.facts import Facts
from starling.orchestrator.limits import stop_at
from starling.orchestrator.spec import Spec

SLACK = 1.15
"""Evaluations, checkpoints, rounds and boots take time besides the steps."""
UNMEASURED_SHARE = 0.1
"""Of a run's time until its deadline: if no step has been measured after so much of it, nodes.min nodes are needed."""


def nodes_needed(facts: Facts, now: float) -> int:
    """The fewest nodes that reach the last step in time; as many as help if none do; 0 without a deadline."""
    deadline = facts.spec.limits.deadline_at
    if deadline is None:
        return 0
    progress = _measured(facts)
    if progress is None:
        begun = facts.begins_at + UNMEASURED_SHARE * (deadline - facts.begins_at)
        return facts.spec.nodes.min if now >= begun else 0
    available = stop_at(facts, deadline) - now
    most = facts.spec.nodes.max
    for nodes in range(facts.spec.nodes.min, most + 1):
        fastest = _relative_step(facts.spec, nodes * facts.spec.nodes.ranks) == _relative_step(
            facts.spec, most * facts.spec.nodes.ranks
        )
        if fastest or seconds_left(facts.spec, progress, nodes) <= available:
            return nodes
    return most


def seconds_left(spec: Spec, progress: Progress, nodes: int) -> float:
    """Until the last step, with so many nodes."""
    change = _relative_step(spec, nodes * spec.nodes.ranks) / _relative_step(spec, progress.world_size)
    return SLACK * (progress.total_steps - progress.step) * (progress.step_seconds or 0.0) * change


def _relative_step(spec: Spec, ranks: int) -> float:
    """How long a step takes with so many ranks, in passes over one shard."""
    assert spec.training is not None
    shards = spec.training.virtual_shards
    whole = spec.training.exact or spec.training.strategy == "fsdp"
    return math.ceil(shards / ranks) if whole else shards / ranks


def _measured(facts: Facts) -> Progress | None:
    """The newest progress with a measured step, of this incarnation or an earlier one."""
    known = [
        (node.intent.incarnation, progress.round, progress.step, progress)
        for node in facts.nodes
        if node.status is not None and (progress := node.status.progress) is not None and progress.step_seconds
    ]
    return max(known, key=lambda entry: entry[:3])[3] if known else None
