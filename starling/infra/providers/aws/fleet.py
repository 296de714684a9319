"""One node as one EC2 Fleet of type instant: the request, and what the answer means. Pure functions.

An instant fleet answers at once, with HTTP 200 even if nothing was launched: then `Errors` says why, offer by offer. It
tries a few of the offers only; it calls the others UnfulfillableCapacity whatever their state, so that word counts
only where no other reason is given. An answer that tells of neither machines nor errors refuses nothing: what came of
the fleet is to be asked of DescribeFleets, which tells both for an instant fleet.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from starling.infra.errors import (
    Misconfigured,
    NoCapacity,
    NotThere,
    PriceTooLow,
    ProviderError,
    ProviderUnavailable,
    QuotaReached,
    Refusal,
    Throttled,
)
from starling.infra.providers.aws.error_codes import coded_error, meaning_of
from starling.infra.providers.aws.tags import as_list
from starling.infra.records import Market, NodeIntent, Offer

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        CreateFleetErrorTypeDef,
        CreateFleetRequestTypeDef,
        CreateFleetResultTypeDef,
        DescribeFleetErrorTypeDef,
        FleetDataTypeDef,
        FleetLaunchTemplateOverridesRequestTypeDef,
        LaunchTemplateAndOverridesResponseTypeDef,
    )

    _Error = CreateFleetErrorTypeDef | DescribeFleetErrorTypeDef

MOST_OFFERS = 100
"""In one request; EC2 takes 300."""
NOT_TRIED = "UnfulfillableCapacity"
_PASSING = (Throttled, ProviderUnavailable, NotThere)
"""In an answer: nothing was launched because AWS itself was not ready; another attempt may be."""


def client_token(store_uri: str, node: str, attempt: int, stopped: int = 0) -> str:
    """64 characters that stand for this attempt at this node, whoever makes it.

    AWS answers a token for ever as it did at first. So an attempt whose fleet was stopped (by a missing permission)
    goes on under another token, the same one for everybody who has got that answer; `stopped` counts them.
    """
    return hashlib.sha256(f"{store_uri}\n{node}\n{attempt}\n{stopped}".encode()).hexdigest()


def wanted(intent: NodeIntent, subnets: Mapping[str, str]) -> tuple[Offer, ...]:
    """The offers of an attempt that one fleet can ask for: of one market, in zones that have a subnet.
    Raises Misconfigured if there is none."""
    candidates = intent.candidates or (intent.offer,)
    market = candidates[0].market
    found = tuple(offer for offer in candidates if offer.market is market and offer.zone in subnets)
    if not found:
        zones = ", ".join(sorted({offer.zone for offer in candidates}))
        raise Misconfigured(
            f"the set-up's VPC has no subnet in {zones}: correct provider.zones, or make a subnet there"
        )
    return found[:MOST_OFFERS]


def fleet_request(
    offers: Sequence[Offer],
    *,
    token: str,
    template: str,
    subnets: Mapping[str, str],
    tags: Mapping[str, str],
    max_price: float | None,
) -> CreateFleetRequestTypeDef:
    """What CreateFleet is asked for one machine that is any of `offers`."""
    market = offers[0].market
    on_spot = market is Market.SPOT
    request: CreateFleetRequestTypeDef = {
        "Type": "instant",
        "ClientToken": token,
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": market.value},
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": "1"},
                "Overrides": [_override(offer, subnets, max_price if on_spot else None) for offer in offers],
            }
        ],
        # An instant fleet tags its instances itself; volumes are tagged by the template.
        "TagSpecifications": [
            {"ResourceType": "fleet", "Tags": as_list(tags)},
            {"ResourceType": "instance", "Tags": as_list(tags)},
        ],
    }
    if on_spot:
        request["SpotOptions"] = {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
        }
    else:
        request["OnDemandOptions"] = {"AllocationStrategy": "lowest-price"}
    return request


def is_silent(answer: CreateFleetResultTypeDef) -> bool:
    """Whether it leaves open what was launched, as the answer to a repeated token may."""
    return not answer.get("Instances") and not answer.get("Errors")


def bought(
    answer: CreateFleetResultTypeDef | FleetDataTypeDef,
    offers: Sequence[Offer],
    subnets: Mapping[str, str],
    *,
    node: str,
) -> tuple[str, Offer]:
    """The instance's id and which offer it is. Raises NoCapacity with a refusal for each offer that was tried, or what
    stops any attempt (a missing permission, a wrong setting); in either case this fleet has no machine for certain.
    Raises ProviderUnavailable if the answer does not tell."""
    for group in answer.get("Instances", []):
        for instance_id in group.get("InstanceIds", []):
            asked = group.get("LaunchTemplateAndOverrides", {})
            return instance_id, _offer_of(asked, offers, subnets) or offers[0]
    errors = answer.get("Errors", [])
    if not errors:
        raise ProviderUnavailable(
            f"AWS tells neither a machine nor a reason for node {node}; the same launch is asked for again"
        )
    for error in errors:
        _stop_if_hopeless(error, node)
    raise _refused(_refusals(errors, offers, subnets), node)


def _override(
    offer: Offer, subnets: Mapping[str, str], max_price: float | None
) -> FleetLaunchTemplateOverridesRequestTypeDef:
    override: FleetLaunchTemplateOverridesRequestTypeDef = {
        "InstanceType": offer.instance_type,  # type: ignore[typeddict-item]  # AWS adds types faster than stubs do
        "SubnetId": subnets[offer.zone],
    }
    if max_price is not None:
        override["MaxPrice"] = f"{max_price:.6f}"
    return override


def _offer_of(
    asked: LaunchTemplateAndOverridesResponseTypeDef, offers: Sequence[Offer], subnets: Mapping[str, str]
) -> Offer | None:
    """Which of the offers an answer speaks of; it names the subnet, and not always the zone."""
    overrides = asked.get("Overrides", {})
    kind, subnet, zone = overrides.get("InstanceType"), overrides.get("SubnetId"), overrides.get("AvailabilityZone")
    for offer in offers:
        if offer.instance_type == kind and (subnets[offer.zone] == subnet or (subnet is None and offer.zone == zone)):
            return offer
    return None


def _stop_if_hopeless(error: _Error, node: str) -> None:
    """Raise what is neither the offer's fault nor passes by itself; unknown codes are never taken for no capacity."""
    code, message = error.get("ErrorCode", "Unknown"), error.get("ErrorMessage", "")
    if not issubclass(meaning_of(code, message).kind, (NoCapacity, *_PASSING)):
        raise coded_error(f"launch node {node}", code, message, operation="CreateFleet")


def _refusals(errors: Sequence[_Error], offers: Sequence[Offer], subnets: Mapping[str, str]) -> tuple[Refusal, ...]:
    tried = [error for error in errors if error.get("ErrorCode") != NOT_TRIED] or errors
    found: dict[tuple[str, str, str], Refusal] = {}
    for error in tried:
        one = _offer_of(error.get("LaunchTemplateAndOverrides", {}), offers, subnets)
        for offer in [one] if one else offers:  # an error that names no offer is about them all
            found.setdefault(offer.key, _refusal(offer, error))
    return tuple(found.values())


def _refusal(offer: Offer, error: _Error) -> Refusal:
    code, message = error.get("ErrorCode", "Unknown"), error.get("ErrorMessage", "")
    kind = meaning_of(code, message).kind
    return Refusal(
        instance_type=offer.instance_type,
        zone=offer.zone,
        market=offer.market.value,
        kind=kind if issubclass(kind, NoCapacity) else NoCapacity,
        message=f"{code}, {message or 'no message'}",
    )


def _refused(refusals: tuple[Refusal, ...], node: str) -> ProviderError:
    kinds = {refusal.kind for refusal in refusals}
    kind = next((one for one in (QuotaReached, PriceTooLow) if kinds == {one}), NoCapacity)
    by_message: dict[str, list[str]] = {}
    for refusal in refusals:
        by_message.setdefault(refusal.message.rstrip("."), []).append(f"{refusal.instance_type} in {refusal.zone}")
    reasons = "; ".join(f"{', '.join(places)}: {message}" for message, places in by_message.items())
    advice = f"; {meaning_of(refusals[0].message.partition(',')[0]).advice}" if kind is not NoCapacity else ""
    return kind(f"no {refusals[0].market} machine for node {node}: {reasons}{advice}", refusals)
