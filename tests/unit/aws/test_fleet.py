"""One node as one instant fleet: the request, and what each answer means."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import (
    Misconfigured,
    NoCapacity,
    NotAuthorised,
    PriceTooLow,
    ProviderError,
    ProviderUnavailable,
    QuotaReached,
)
from starling.infra.providers.aws.fleet import bought, client_token, fleet_request, is_silent, wanted
from starling.infra.records import Market, Offer
from tests.support.aws_nodes import an_intent, an_offer

SUBNETS = {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}
OFFERS = (an_offer(), an_offer(zone="b"), an_offer("g4dn.xlarge"))


def request(*offers: Offer, max_price: float | None = None) -> Any:
    return fleet_request(
        offers or OFFERS, token="t", template="template", subnets=SUBNETS, tags={"k": "v"}, max_price=max_price
    )


def failed(code: str, message: str = "words", kind: str = "g5.xlarge", subnet: str = "subnet-a") -> dict[str, Any]:
    overrides = {"InstanceType": kind, "SubnetId": subnet}
    return {
        "ErrorCode": code,
        "ErrorMessage": message,
        "Lifecycle": "spot",
        "LaunchTemplateAndOverrides": {"Overrides": overrides},
    }


def read(*errors: dict[str, Any], **rest: Any) -> tuple[str, Offer]:
    answer: Any = {"FleetId": "fleet-1", "Errors": list(errors), "Instances": []} | rest
    return bought(answer, OFFERS, SUBNETS, node="run.0.0")


def test_a_token_is_the_attempt_s_and_short_enough() -> None:
    tokens = {
        client_token("s3://b/store", "run.0.0", 0),
        client_token("s3://b/store", "run.0.0", 1),
        client_token("s3://b/store", "run.0.1", 0),
        client_token("s3://c/store", "run.0.0", 0),
        client_token("s3://b/store", "run.0.0", 0, stopped=1),
    }
    assert len(tokens) == 5
    assert all(len(token) <= 64 and token.isascii() for token in tokens)
    assert client_token("s3://b/store", "run.0.0", 0) in tokens


def test_one_machine_is_asked_for_with_an_override_for_each_offer() -> None:
    asked = request()
    assert (asked["Type"], asked["TargetCapacitySpecification"]["TotalTargetCapacity"]) == ("instant", 1)
    config = asked["LaunchTemplateConfigs"][0]
    assert config["LaunchTemplateSpecification"] == {"LaunchTemplateName": "template", "Version": "1"}
    assert config["Overrides"] == [
        {"InstanceType": "g5.xlarge", "SubnetId": "subnet-a"},
        {"InstanceType": "g5.xlarge", "SubnetId": "subnet-b"},
        {"InstanceType": "g4dn.xlarge", "SubnetId": "subnet-a"},
    ]
    assert {spec["ResourceType"] for spec in asked["TagSpecifications"]} == {"fleet", "instance"}


def test_spot_and_on_demand_are_chosen_in_their_own_ways() -> None:
    spot = request(max_price=0.7)
    assert spot["SpotOptions"]["AllocationStrategy"] == "price-capacity-optimized"
    assert spot["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == "spot"
    assert {each["MaxPrice"] for each in spot["LaunchTemplateConfigs"][0]["Overrides"]} == {"0.700000"}
    full = request(an_offer(market=Market.ON_DEMAND), max_price=0.7)
    assert full["OnDemandOptions"]["AllocationStrategy"] == "lowest-price"
    assert full["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == "on-demand"
    assert "SpotOptions" not in full
    assert "MaxPrice" not in full["LaunchTemplateConfigs"][0]["Overrides"][0]


def test_a_fleet_asks_one_market_in_zones_with_a_subnet() -> None:
    on_demand = an_offer(market=Market.ON_DEMAND)
    assert wanted(an_intent("run", an_offer(zone="c"), an_offer(), on_demand), SUBNETS) == (an_offer(),)
    with pytest.raises(Misconfigured, match=r"no subnet in us-east-1c: correct provider\.zones"):
        wanted(an_intent("run", an_offer(zone="c")), SUBNETS)


def test_an_intent_without_candidates_asks_for_its_offer() -> None:
    assert wanted(an_intent("run").but(candidates=()), SUBNETS) == (an_offer(),)


def test_the_offer_that_was_bought_is_known_by_type_and_subnet() -> None:
    group = {
        "LaunchTemplateAndOverrides": {"Overrides": {"InstanceType": "g5.xlarge", "SubnetId": "subnet-b"}},
        "InstanceIds": ["i-1"],
    }
    assert read(failed("InsufficientInstanceCapacity"), Instances=[group]) == ("i-1", OFFERS[1])


def test_each_offer_has_its_own_refusal() -> None:
    with pytest.raises(NoCapacity) as caught:
        read(
            failed("InsufficientInstanceCapacity"),
            failed("MaxSpotInstanceCountExceeded", kind="g4dn.xlarge"),
            failed("SpotMaxPriceTooLow", subnet="subnet-b"),
        )
    assert type(caught.value) is NoCapacity
    assert {(each.instance_type, each.zone, each.kind) for each in caught.value.refusals} == {
        ("g5.xlarge", "us-east-1a", NoCapacity),
        ("g4dn.xlarge", "us-east-1a", QuotaReached),
        ("g5.xlarge", "us-east-1b", PriceTooLow),
    }
    assert "g4dn.xlarge in us-east-1a: MaxSpotInstanceCountExceeded, words" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [("VcpuLimitExceeded", QuotaReached, "Service Quotas"), ("SpotMaxPriceTooLow", PriceTooLow, "provider.max_price")],
)
def test_one_reason_for_all_offers_names_the_error(code: str, kind: type[NoCapacity], advice: str) -> None:
    with pytest.raises(kind, match=advice) as caught:
        read(failed(code), failed(code, kind="g4dn.xlarge"))
    assert type(caught.value) is kind


def test_an_offer_that_was_not_tried_is_not_refused() -> None:
    """A fleet tries three of its pools and calls the others unfulfillable."""
    with pytest.raises(NoCapacity) as caught:
        read(failed("InsufficientInstanceCapacity"), failed("UnfulfillableCapacity", kind="g4dn.xlarge"))
    assert [each.instance_type for each in caught.value.refusals] == ["g5.xlarge"]
    with pytest.raises(NoCapacity) as caught:
        read(failed("UnfulfillableCapacity"), failed("UnfulfillableCapacity", kind="g4dn.xlarge"))
    assert len(caught.value.refusals) == 2


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        (
            "UnauthorizedOperation",
            "User: arn:aws:iam::1:user/a is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/n",
            NotAuthorised,
            "may not do iam:PassRole on arn:aws:iam::1:role/n",
        ),
        ("InvalidAMIID.NotFound", "no such image", Misconfigured, r"provider\.image"),
        ("InvalidParameterValue", "Value (x) for parameter y", Misconfigured, r"Value \(x\) for parameter y"),
        ("BrandNew", "words", ProviderError, "BrandNew, words"),
    ],
)
def test_what_no_other_offer_can_mend_stops_whatever_else_was_refused(
    code: str, message: str, kind: type[ProviderError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        read(failed("InsufficientInstanceCapacity"), failed(code, message, kind="g4dn.xlarge"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "code", ["InternalError", "RequestLimitExceeded", "InvalidLaunchTemplateName.NotFoundException"]
)
def test_what_passes_by_itself_is_worth_another_attempt(code: str) -> None:
    with pytest.raises(NoCapacity, match=code) as caught:
        read(failed(code))
    assert type(caught.value) is NoCapacity


def test_an_error_that_names_no_offer_is_about_all() -> None:
    with pytest.raises(NoCapacity) as caught:
        read({"ErrorCode": "InsufficientInstanceCapacity", "ErrorMessage": "words"})
    assert len(caught.value.refusals) == len(OFFERS)


def test_an_answer_without_machine_and_reason_refuses_nothing() -> None:
    """The machine may run: a refusal would buy another one for the same node."""
    silent: Any = {"FleetId": "fleet-1", "Errors": [], "Instances": []}
    assert is_silent(silent)
    assert not is_silent(silent | {"Errors": [failed("InsufficientInstanceCapacity")]})
    with pytest.raises(ProviderUnavailable, match="neither a machine nor a reason"):
        read()
