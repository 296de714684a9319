"""CreateFleet of type `instant`, as EC2 does it: take what can be had of the overrides, and say why not the others.

moto puts everything into the first override, never refuses, and loses security groups and instance profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2.models.fleets import Fleet
from moto.ec2.models.instances import Instance

from starling.infra.records import Market
from starling.infra.region.calls import Refused
from starling.infra.region.machines import start_machine
from starling.infra.region.pools import Pool, Refusal

UNFULFILLABLE = Refusal(
    code="UnfulfillableCapacity",
    message="Unable to fulfill capacity due to your request configuration. Please adjust your request and try again.",
)
_FAILS_ALONE = ("InvalidParameterValue", "InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidKeyPair.NotFound")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One launch template with one override."""

    template: Mapping[str, Any]
    """LaunchTemplateSpecification, as EC2 tells it back."""
    override: Mapping[str, Any]
    data: Mapping[str, Any]
    """The template's data with the override's laid over it."""
    pool: Pool
    price: float
    """What the machine costs now."""
    room: float
    """How many more of the pool there are; may be infinite."""

    @property
    def priority(self) -> float:
        return float(self.override.get("Priority", float("inf")))

    @property
    def max_price(self) -> float:
        market = self.data.get("InstanceMarketOptions", {}).get("SpotOptions", {})
        return float(self.override.get("MaxPrice") or market.get("MaxPrice") or float("inf"))

    @property
    def described(self) -> dict[str, Any]:
        return {"LaunchTemplateSpecification": dict(self.template), "Overrides": dict(self.override)}


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of a request."""

    bought: list[tuple[Candidate, Instance]] = field(default_factory=list)
    refused: list[tuple[Candidate, Refusal]] = field(default_factory=list)


class InstantFleet(Fleet):
    """Kept so that it can be described and deleted; everything else about it happened when it was made."""

    def __init__(
        self, backend: Any, fleet_id: str, request: Mapping[str, Any], market: Market, outcome: Outcome
    ) -> None:
        super().__init__(
            backend,
            fleet_id,
            on_demand_options=dict(request.get("OnDemandOptions", {})),
            spot_options=dict(request.get("SpotOptions", {})),
            target_capacity_specification={"TotalTargetCapacity": 0},
            launch_template_configs=[],
            excess_capacity_termination_policy="",
            replace_unhealthy_instances=False,
            terminate_instances_with_expiration=False,
            fleet_type="instant",
            valid_from=None,
            valid_until=None,
            tag_specifications=list(request.get("TagSpecifications", [])),
        )
        self.target_capacity_specification = request["TargetCapacitySpecification"]
        self.launch_template_configs = request["LaunchTemplateConfigs"]
        self.on_demand_instances = [
            {"id": fleet_id, "instance": machine, "launch_spec": None} for _, machine in outcome.bought
        ]
        self.fulfilled_capacity = float(len(outcome.bought))
        self.target_capacity = len(outcome.bought)
        self._bought = tuple(outcome.bought)
        self._refused = tuple(outcome.refused)
        self._market = market

    @property
    def instances(self) -> list[dict[str, Any]]:
        return [
            {
                "LaunchTemplateAndOverrides": candidate.described,
                "Lifecycle": self._market.value,
                "InstanceIds": [machine.id],
                "InstanceType": machine.instance_type,
            }
            for candidate, machine in self._bought
        ]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """One for each candidate that was refused."""
        return [
            {
                "LaunchTemplateAndOverrides": candidate.described,
                "Lifecycle": self._market.value,
                "ErrorCode": refused.code,
                "ErrorMessage": refused.message,
            }
            for candidate, refused in self._refused
        ]


def in_order(candidates: Sequence[Candidate], strategy: str) -> list[Candidate]:
    """Best first. Of equals the one that was named first.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-allocation-strategy.html
    """
    keys: dict[str, Callable[[Candidate], tuple[float, ...]]] = {
        "lowest-price": lambda each: (each.price,),
        "price-capacity-optimized": lambda each: (each.room == 0, each.price),
        "capacity-optimized": lambda each: (-each.room, each.price),
        "capacity-optimized-prioritized": lambda each: (-each.room, each.priority),
        "prioritized": lambda each: (each.priority, each.price),
    }
    if strategy not in keys:
        raise Refused("InvalidParameterValue", f"Allocation strategy {strategy!r} is not emulated")
    return sorted(candidates, key=keys[strategy])


def fill(
    candidates: Sequence[Candidate],
    *,
    target: int,
    refusal: Callable[[Candidate], Refusal | None],
    start: Callable[[Candidate], Instance],
) -> Outcome:
    """Take machines from the candidates in this order until there are `target`; one refusal a candidate is told."""
    outcome = Outcome()
    for candidate in candidates:
        while len(outcome.bought) < target:
            refused = refusal(candidate)
            if refused is not None:
                outcome.refused.append((candidate, refused))
                break
            try:
                outcome.bought.append((candidate, start(candidate)))
            except (Refused, ServiceException) as error:
                if error.code not in _FAILS_ALONE:
                    raise
                outcome.refused.append((candidate, Refusal(code=error.code, message=str(error.message))))
                break
    return outcome


def read_candidates(
    backend: Any,
    request: Mapping[str, Any],
    market: Market,
    price: Callable[[Pool], float],
    room: Callable[[Pool], float],
) -> Iterator[Candidate]:
    """Every template with each of its overrides. Raises Refused or moto's exceptions for what does not exist."""
    for config in request["LaunchTemplateConfigs"]:
        named = dict(config["LaunchTemplateSpecification"])
        template = _template(backend, named)
        version = template.get_version(named.get("Version", "$Default"))
        told = {"LaunchTemplateId": template.id, "Version": str(version.number)}
        for override in config.get("Overrides") or [{}]:
            data = {**version.data, **{key: value for key, value in override.items() if value is not None}}
            zone = _place(backend, data)
            if "InstanceType" not in data:
                raise Refused("InvalidParameterValue", "An instance type must be given; requirements are not emulated")
            pool = Pool(instance_type=data["InstanceType"], zone=zone, market=market)
            yield Candidate(template=told, override=override, data=data, pool=pool, price=price(pool), room=room(pool))


def start_candidate(backend: Any, candidate: Candidate, request: Mapping[str, Any], fleet_id: str) -> Instance:
    """Tags of the request go over those of the template."""
    tags: dict[str, dict[str, str]] = {"instance": {}, "volume": {}}
    for spec in [*candidate.data.get("TagSpecifications", []), *request.get("TagSpecifications", [])]:
        if spec.get("ResourceType") in tags:
            tags[spec["ResourceType"]] |= {tag["Key"]: tag.get("Value", "") for tag in spec.get("Tags", [])}
    tags["instance"] |= {
        "aws:ec2:fleet-id": fleet_id,
        "aws:ec2launchtemplate:id": candidate.template["LaunchTemplateId"],
        "aws:ec2launchtemplate:version": candidate.template["Version"],
    }
    return start_machine(backend, candidate.data, market=candidate.pool.market, tags=tags, fleet=fleet_id)


def market_of(request: Mapping[str, Any]) -> Market:
    default = request["TargetCapacitySpecification"].get("DefaultTargetCapacityType", "on-demand")
    return Market.SPOT if default == "spot" else Market.ON_DEMAND


def _template(backend: Any, named: Mapping[str, Any]) -> Any:
    if named.get("LaunchTemplateId"):
        return backend.get_launch_template(template_id=named["LaunchTemplateId"])
    if named.get("LaunchTemplateName"):
        return backend.get_launch_template_by_name(name=named["LaunchTemplateName"])
    raise Refused("MissingParameter", "The request must contain the parameter launchTemplateName or launchTemplateId")


def _place(backend: Any, data: dict[str, Any]) -> str:
    """The zone of the subnet; without a subnet, that of the zone's default one, which is filled in."""
    if not data.get("SubnetId"):
        subnets = backend.get_default_subnets()
        zone = data.get("AvailabilityZone") or sorted(subnets)[0]
        if zone not in subnets:
            raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        data["SubnetId"] = subnets[zone].id
    return str(backend.get_subnet(data["SubnetId"]).availability_zone)
