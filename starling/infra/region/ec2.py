"""EC2 calls that moto lacks or does too simply; all others are moto's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data, random_fleet_id

from starling.infra.records import Market
from starling.infra.region.calls import Refused
from starling.infra.region.fleets import (
    UNFULFILLABLE,
    Candidate,
    InstantFleet,
    Outcome,
    fill,
    in_order,
    market_of,
    read_candidates,
    start_candidate,
)
from starling.infra.region.machines import is_offered, living_pools, vcpus
from starling.infra.region.pools import Pool, Refusal

if TYPE_CHECKING:
    from starling.infra.region.cloud import EmulatedCloud

PRODUCT = "Linux/UNIX"
PRICE_PAGE = 1000


class Ec2Response(EC2Response):
    """Answers what moto would answer wrongly; made anew for every call."""

    def __init__(self, cloud: EmulatedCloud) -> None:
        super().__init__()
        self._cloud = cloud

    def create_fleet(self) -> ActionResult:
        request = self._plain(("TargetCapacitySpecification", "LaunchTemplateConfigs", "TagSpecifications", "Type"))
        request |= self._plain(("SpotOptions", "OnDemandOptions"))
        if request.get("Type") != "instant":
            return super().create_fleet()
        self.error_on_dryrun()
        backend, market, fleet_id = self.ec2_backend, market_of(request), random_fleet_id()
        options = request.get("SpotOptions" if market is Market.SPOT else "OnDemandOptions", {})
        candidates = in_order(
            list(read_candidates(backend, request, market, self._price, self._room)),
            options.get("AllocationStrategy", "lowest-price"),
        )
        target = int(request["TargetCapacitySpecification"]["TotalTargetCapacity"])
        least = int(options.get("MinTargetCapacity") or 0)
        if least and sum(each.room for each in candidates if not self._refusal(each)) < least:
            outcome = Outcome(refused=[(each, self._refusal(each) or UNFULFILLABLE) for each in candidates])
        else:
            outcome = fill(
                candidates,
                target=target,
                refusal=self._refusal,
                start=lambda each: start_candidate(backend, each, request, fleet_id),
            )
        for _, machine in outcome.bought:
            if market is Market.SPOT:
                machine.spot_instance_request_id = f"sir-{secrets.token_hex(4)}"  # type: ignore[attr-defined]
        fleet = InstantFleet(backend, fleet_id, request, market, outcome)
        backend.fleets[fleet_id] = fleet
        return ActionResult({"FleetId": fleet_id, "Instances": fleet.instances, "Errors": fleet.errors})

    def describe_fleets(self) -> ActionResult:
        """Instant fleets are told only to those who name them, as EC2 does it, and then with what came of them."""
        ids = self._get_param("FleetIds", [])
        if unknown := [name for name in ids if name not in self.ec2_backend.fleets]:
            raise Refused("InvalidFleetId.NotFound", f"The fleet ID '{unknown[0]}' does not exist")
        fleets = self.ec2_backend.describe_fleets(ids)
        return ActionResult({"Fleets": [fleet for fleet in fleets if ids or not isinstance(fleet, InstantFleet)]})

    def run_instances(self) -> ActionResult:
        market = Market.SPOT if self._get_param("InstanceMarketOptions.MarketType") == "spot" else Market.ON_DEMAND
        subnet = self._get_param("SubnetId") or _subnet_of(self._get_param("NetworkInterfaces", []))
        self._check_groups(subnet)
        zone = (
            self.ec2_backend.get_subnet(subnet).availability_zone
            if subnet
            else self._get_param("Placement.AvailabilityZone") or f"{self.region}a"
        )
        pool = Pool(instance_type=self._get_param("InstanceType", "m1.small"), zone=zone, market=market)
        for reason in (self._cloud.capacity.refusal(pool, living_pools()), self._over_quota(pool)):
            if reason is not None:
                raise Refused(reason.code, reason.message)
        return super().run_instances()

    def create_launch_template_version(self) -> ActionResult:
        """A version takes over what its source version has and it does not name."""
        backend = self.ec2_backend
        name, template_id = self._get_param("LaunchTemplateName"), self._get_param("LaunchTemplateId")
        template = (
            backend.get_launch_template(template_id) if template_id else backend.get_launch_template_by_name(name)
        )
        source = self._get_param("SourceVersion")
        inherited = template.get_version(source).data if source else {}
        given = dict(self._get_param("LaunchTemplateData", {}))
        if "UserData" in given:
            given["UserData"] = parse_user_data(given["UserData"])
        self.error_on_dryrun()
        version = template.create_version({**inherited, **given}, self._get_param("VersionDescription"))
        told = {
            "CreateTime": version.create_time,
            "DefaultVersion": template.is_default(version),
            "LaunchTemplateData": version.data,
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "VersionDescription": version.description,
            "VersionNumber": version.number,
        }
        return ActionResult({"LaunchTemplateVersion": told})

    def describe_spot_price_history(self) -> ActionResult:
        filters: dict[str, Any] = dict(self._filters_from_querystring())
        types = self._get_param("InstanceTypes", []) or filters.get("instance-type", [])
        zones = [zone for zone in (self._get_param("AvailabilityZone"),) if zone] or filters.get(
            "availability-zone", []
        )
        products = self._get_param("ProductDescriptions", []) or filters.get("product-description", [])
        rows: list[dict[str, Any]] = []
        if not products or any(product.startswith(PRODUCT) for product in products):
            rows = self._price_rows(types, zones)
        start = int(self._get_param("NextToken") or 0)
        end = start + int(self._get_param("MaxResults") or PRICE_PAGE)
        token = str(end) if end < len(rows) else ""
        return ActionResult({"SpotPriceHistory": rows[start:end], "NextToken": token})

    def get_spot_placement_scores(self) -> ActionResult:
        regions = self._get_param("RegionNames", []) or [self.region]
        by_zone = bool(self._get_bool_param("SingleAvailabilityZone"))
        types = self._get_param("InstanceTypes", [])
        scores: list[dict[str, Any]] = []
        for region in regions:
            backend = ec2_backends[DEFAULT_ACCOUNT_ID][region]
            found = {zone.zone_id: self._score(types, zone.name) for zone in backend.describe_availability_zones()}
            if by_zone:
                scores += [
                    {"Region": region, "AvailabilityZoneId": zone, "Score": score} for zone, score in found.items()
                ]
            else:
                scores.append({"Region": region, "Score": max(found.values())})
        return ActionResult({"SpotPlacementScores": sorted(scores, key=lambda each: -each["Score"])})

    def get_console_output(self) -> ActionResult:
        machine = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(self._cloud.console(machine.id))
        return ActionResult({"InstanceId": machine.id, "Timestamp": utcnow(), "Output": output})

    def _check_groups(self, subnet: str | None) -> None:
        """A launch template's security group and the subnet must be of one VPC; without a subnet it is a default one,
        whatever VPC the group is of. moto puts the machine anywhere."""
        named = self._get_param("LaunchTemplate") or {}
        template = self.ec2_backend.get_launch_template(named["LaunchTemplateId"]) if named else None
        asked = self._get_param("NetworkInterfaces", [])
        given = asked or (template.get_version("$Latest").data.get("NetworkInterfaces", []) if template else [])
        groups = [group for one in given for group in one.get("Groups", [])]
        if not groups:
            return
        if subnet is None and not (defaults := self.ec2_backend.get_default_subnets()):
            raise Refused("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
        vpc = (self.ec2_backend.get_subnet(subnet) if subnet else next(iter(defaults.values()))).vpc_id
        for group in groups:
            found = self.ec2_backend.get_security_group_from_id(group)
            if found is not None and found.vpc_id != vpc:
                raise Refused(
                    "InvalidParameter",
                    f"Security group {group} and subnet {subnet or 'of the default VPC'} belong to different networks.",
                )

    def _plain(self, names: tuple[str, ...]) -> dict[str, Any]:
        given = {name: self._get_param(name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _price_rows(self, types: list[str], zones: list[str]) -> list[dict[str, Any]]:
        """Newest first, as EC2 tells them."""
        now = self._cloud.now()
        start, end = (_seconds(self._get_param(name), now) for name in ("StartTime", "EndTime"))
        offered = {
            (each["InstanceType"], each["Location"])
            for each in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.region, [])
            if (not types or each["InstanceType"] in types) and (not zones or each["Location"] in zones)
        }
        rows = [
            {
                "InstanceType": name,
                "AvailabilityZone": zone,
                "ProductDescription": PRODUCT,
                "SpotPrice": f"{change.price:.6f}",
                "Timestamp": change.at,
            }
            for name, zone in sorted(offered)
            for change in self._cloud.prices.history(name, zone, start, min(end, now))
        ]
        return sorted(rows, key=lambda row: -float(str(row["Timestamp"])))

    def _score(self, types: list[str], zone: str) -> int:
        target = float(self._get_param("TargetCapacity") or 1)
        shares = []
        for name in types:
            pool = Pool(instance_type=name, zone=zone, market=Market.SPOT)
            room = self._room(pool) if is_offered(name, zone) else 0
            shares.append(min(1.0, room / target))
        return max(1, round(self._cloud.prices.score(zone) * max(shares, default=0.0)))

    def _price(self, pool: Pool) -> float:
        prices, now = self._cloud.prices, self._cloud.now()
        on_demand = prices.on_demand(pool.instance_type)
        price = prices.spot(pool.instance_type, pool.zone, now) if pool.market is Market.SPOT else on_demand
        return float("inf") if price is None else price

    def _room(self, pool: Pool) -> float:
        room = self._cloud.capacity.room(pool, living_pools())
        return float("inf") if room is None else room

    def _over_quota(self, pool: Pool) -> Refusal | None:
        return self._cloud.quotas.refusal(pool, living_pools(), vcpus)

    def _refusal(self, candidate: Candidate) -> Refusal | None:
        pool = candidate.pool
        checks: tuple[Callable[[], Refusal | None], ...] = (
            lambda: None if is_offered(pool.instance_type, pool.zone) else _not_offered(pool),
            lambda: self._cloud.capacity.refusal(pool, living_pools()),
            lambda: self._over_quota(pool),
            lambda: _too_cheap(candidate) if candidate.price > candidate.max_price else None,
        )
        return next((found for check in checks if (found := check()) is not None), None)


def _subnet_of(interfaces: list[dict[str, Any]]) -> str | None:
    return next((one["SubnetId"] for one in interfaces if one.get("SubnetId")), None)


def _not_offered(pool: Pool) -> Refusal:
    return Refusal(
        code="InvalidFleetConfiguration",
        message=f"Your requested instance type ({pool.instance_type}) is not supported in your requested Availability"
        f" Zone ({pool.zone}).",
    )


def _too_cheap(candidate: Candidate) -> Refusal:
    return Refusal(
        code="SpotMaxPriceTooLow",
        message=f"Your Spot request price of {candidate.max_price:g} is lower than the minimum required Spot request"
        f" fulfillment price of {candidate.price:g}.",
    )


def _seconds(moment: Any, default: float) -> float:
    return default if moment is None else float(moment.timestamp())
