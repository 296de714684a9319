"""Whether a node was of use, for what comes after it."""

from __future__ import annotations

import pytest

from starling.infra.records import Market, NodeEnd, NodeIntent, NodeState, NodeStatus, Offer, Progress
from starling.orchestrator.facts import NodeFacts
from starling.orchestrator.setbacks import FIRST_WAIT_SECONDS, launch_not_before

OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)


def ended(generation: int, *, started: bool) -> NodeFacts:
    """A node that ended 10 s after its launch, by its agent's own word; its last progress is of this kind."""
    at = 100.0 * generation
    node = f"r.0.{generation}"
    progress = Progress(
        at=at, step=0, total_steps=0, epoch=0, round=generation, world_size=1, rank=0, active_at=at, started=started
    )
    intent = NodeIntent(
        node=node,
        run="r",
        incarnation=0,
        slot=0,
        generation=generation,
        offer=OFFER,
        wanted_at=at,
        authorised_until=None,
        launched_at=at,
        gone_at=at + 10,
    )
    status = NodeStatus(
        node=node,
        run="r",
        state=NodeState.ENDED,
        at=at + 10,
        booted_at=at,
        address="127.0.0.1",
        instance_id="i",
        progress=progress,
        ended=NodeEnd(at=at + 10, reason="its supervisor crashed again and again"),
    )
    return NodeFacts(intent=intent, status=status)


@pytest.mark.parametrize(("started", "waits"), [(False, True), (True, False)])
def test_a_node_that_only_filled_its_folder_was_of_no_use(started: bool, waits: bool) -> None:
    chain = [ended(generation, started=started) for generation in range(3)]
    assert launch_not_before(chain) == (210.0 + 2 * FIRST_WAIT_SECONDS if waits else 0.0)
