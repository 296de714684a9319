"""The VPC that nodes live in, and its subnet in each zone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.records import Offer

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, RouteTableTypeDef, RouteTypeDef, SubnetTypeDef

_ZONE = re.compile(r"[a-z]+(-[a-z]+)+-\d[a-z]")
"""An availability zone. Local Zones (us-east-1-bos-1a) and Wavelength sell other things at other prices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where nodes of one zone go."""

    zone: str
    subnet: str
    way_out: str | None
    """What its default route leads to (igw-..., nat-..., tgw-...); None: it cannot reach the internet."""
    public: bool
    """Machines there get a public address without asking."""
    gateway_endpoint: bool = False
    """One is among its routes: of S3, whose data then takes no other way, or (much rarer) of DynamoDB."""

    @property
    def pays_for_s3(self) -> bool:
        """Its traffic with S3 goes through a NAT gateway, which charges for every byte."""
        return self.way_out is not None and self.way_out.startswith("nat-") and not self.gateway_endpoint


def subnets(clients: AwsClients, vpc: str) -> dict[str, str]:
    """Zone -> the subnet that nodes there go to. Raises Misconfigured if the VPC has none."""
    return {place.zone: place.subnet for place in places(clients, vpc)}


def places(clients: AwsClients, vpc: str) -> list[Place]:
    """One a zone, by zone; two calls. Raises Misconfigured if there is none.

    Of several subnets in a zone: one with a way to the internet first (nodes fetch packages and reach S3), then the
    zone's default, then the one with the most free addresses.
    """
    by_vpc: FilterTypeDef = {"Name": "vpc-id", "Values": [vpc]}
    with clients.named(f"read the subnets and routes of {vpc}"):
        pages = clients.ec2.get_paginator("describe_subnets").paginate(Filters=[by_vpc])
        found = [subnet for page in pages for subnet in page["Subnets"]]
        tables = clients.ec2.get_paginator("describe_route_tables").paginate(Filters=[by_vpc])
        routes = [table for page in tables for table in page["RouteTables"]]
    chosen = _best_of_each_zone(found, routes)
    if not chosen:
        raise Misconfigured(f"{vpc} in {clients.region} has no subnet in an availability zone: make one, or use --vpc")
    return chosen


def reachable(offers: Sequence[Offer], subnets: Mapping[str, str], vpc: str) -> list[Offer]:
    """Those in zones that have a subnet of the VPC, in the same order. Raises Misconfigured if that leaves none."""
    found = [offer for offer in offers if offer.zone in subnets]
    if offers and not found:
        zones = ", ".join(sorted({offer.zone for offer in offers}))
        raise Misconfigured(
            f"machines are offered in {zones} only, where {vpc} has no subnet; it has subnets in "
            f"{', '.join(sorted(subnets))}: correct provider.zones, or make a subnet there"
        )
    return found


def find_vpc(clients: AwsClients, named: str | None) -> str:
    """The VPC named by the user, or the region's default one. Raises Misconfigured if there is none."""
    with clients.named("look for the VPC"):
        if named is not None:
            return clients.ec2.describe_vpcs(VpcIds=[named])["Vpcs"][0]["VpcId"]
        found = clients.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise Misconfigured(
            f"{clients.region} has no default VPC: name one with --vpc, or make it with "
            f"`aws ec2 create-default-vpc --region {clients.region}`"
        )
    return found[0]["VpcId"]


def wants_public_addresses(found: Iterable[Place]) -> bool:
    """Whether nodes need a public address to reach the internet. Behind NAT it would only cost."""
    return any(place.way_out.startswith("igw-") if place.way_out else place.public for place in found)


def _best_of_each_zone(found: Sequence[SubnetTypeDef], tables: Sequence[RouteTableTypeDef]) -> list[Place]:
    routes = {subnet["SubnetId"]: _routes(subnet["SubnetId"], tables) for subnet in found}
    ways = {subnet: next(filter(None, map(_leads_to, own)), None) for subnet, own in routes.items()}

    def rank(subnet: SubnetTypeDef) -> tuple[bool, bool, int, str]:
        free = subnet["AvailableIpAddressCount"]
        return ways[subnet["SubnetId"]] is not None, subnet["DefaultForAz"], free, subnet["SubnetId"]

    best = {subnet["AvailabilityZone"]: subnet for subnet in sorted(found, key=rank) if _is_usable(subnet)}
    return [
        Place(
            zone=zone,
            subnet=subnet["SubnetId"],
            way_out=ways[subnet["SubnetId"]],
            public=subnet["MapPublicIpOnLaunch"],
            gateway_endpoint=any(_is_endpoint(route) for route in routes[subnet["SubnetId"]]),
        )
        for zone, subnet in sorted(best.items())
    ]


def _is_usable(subnet: SubnetTypeDef) -> bool:
    return (
        subnet["State"] == "available"
        and not subnet.get("OutpostArn")
        and _ZONE.fullmatch(subnet["AvailabilityZone"]) is not None
    )


def _routes(subnet: str, tables: Sequence[RouteTableTypeDef]) -> list[RouteTypeDef]:
    """Of the subnet's own route table, else of the VPC's main one."""
    own = [table for table in tables if any(at.get("SubnetId") == subnet for at in table["Associations"])]
    main = [table for table in tables if any(at.get("Main") for at in table["Associations"])]
    return [route for table in own or main for route in table["Routes"]]


def _is_endpoint(route: RouteTypeDef) -> bool:
    return route.get("GatewayId", "").startswith("vpce-")


def _leads_to(route: RouteTypeDef) -> str | None:
    if route.get("DestinationCidrBlock") != "0.0.0.0/0" or route.get("State") == "blackhole":
        return None
    return (
        route.get("GatewayId")
        or route.get("NatGatewayId")
        or route.get("TransitGatewayId")
        or route.get("NetworkInterfaceId")
    )
