"""Spot placement scores: EC2's own guess, 1 to 10, how likely a zone is to have spot capacity. Advice, never needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starling.infra.errors import CredentialsExpired, ProviderError
from starling.infra.providers.aws.catalog import Zone

if TYPE_CHECKING:
    from starling.infra.providers.aws.clients import AwsClients

FEWEST_TYPES = 3
"""For fewer types EC2 always answers with a low score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    by_zone: dict[str, int]
    """For all the types together that were asked about; zones that EC2 does not score are missing."""
    note: str | None = None


def read_scores(clients: AwsClients, types: Sequence[str], zones: Sequence[Zone]) -> Scores:
    """Scores by zone name. Without permission, over the limit of different questions a day, or if EC2 fails, there are
    none and the note says why. Raises CredentialsExpired."""
    try:
        told = _ask(clients, types)
    except CredentialsExpired:
        raise
    except ProviderError as error:
        return Scores(by_zone={}, note=f"no placement scores: {error}")
    scores = {zone.name: told[zone.id] for zone in zones if zone.id in told}
    few = f"placement scores are always low for fewer than {FEWEST_TYPES} instance types"
    return Scores(by_zone=scores, note=few if scores and len(types) < FEWEST_TYPES else None)


def _ask(clients: AwsClients, types: Sequence[str]) -> dict[str, int]:
    """By zone id: names mean different zones in different accounts. Asked for one machine, so that the question stays
    the same whatever the run: EC2 limits how many different ones it answers a day."""
    with clients.named("read spot placement scores"):
        pages = clients.ec2.get_paginator("get_spot_placement_scores").paginate(
            InstanceTypes=sorted(types), TargetCapacity=1, SingleAvailabilityZone=True, RegionNames=[clients.region]
        )
        return {score["AvailabilityZoneId"]: score["Score"] for page in pages for score in page["SpotPlacementScores"]}
