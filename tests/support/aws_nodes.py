"""Intents for nodes on AWS."""

from __future__ import annotations

from collections.abc import Sequence

from starling.infra.layout import node_id
from starling.infra.records import Market, NodeIntent, Offer


def an_offer(instance_type: str = "g5.xlarge", zone: str = "a", market: Market = Market.SPOT, gpus: int = 1) -> Offer:
    """In a zone of us-east-1."""
    return Offer(
        provider="aws",
        instance_type=instance_type,
        zone=f"us-east-1{zone}",
        market=market,
        price_per_hour=0.5,
        gpus=gpus,
    )


def an_intent(run: str, *candidates: Offer, slot: int = 0, attempt: int = 0, generation: int = 0) -> NodeIntent:
    """A node of a run that may be any of these offers, or g5.xlarge in zone a on spot."""
    offers: Sequence[Offer] = candidates or (an_offer(),)
    return NodeIntent(
        node=node_id(run, slot, generation),
        run=run,
        incarnation=0,
        slot=slot,
        generation=generation,
        offer=offers[0],
        candidates=tuple(offers),
        attempt=attempt,
        wanted_at=0.0,
        authorised_until=None,
    )
