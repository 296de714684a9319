"""The one door to AWS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from starling.infra.errors import NoCapacity, ProviderUnavailable
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.region.cloud import EmulatedCloud
from tests.support.account import lead_to


@pytest.fixture(scope="module")
def served() -> Iterator[EmulatedCloud]:
    with EmulatedCloud() as cloud:
        yield cloud


@pytest.fixture
def clients(served: EmulatedCloud, monkeypatch: pytest.MonkeyPatch) -> AwsClients:
    lead_to(served, monkeypatch)
    served.heal()
    served.calls.clear()
    return AwsClients("us-east-1")


def test_calls_are_counted_by_operation_in_all_regions_together(clients: AwsClients) -> None:
    for region in ("us-east-1", "eu-west-1"):
        clients.in_region(region).ec2.describe_subnets()
    clients.sts.get_caller_identity()
    assert clients.calls == {"DescribeSubnets": 2, "GetCallerIdentity": 1}


def test_a_region_s_clients_are_made_once(clients: AwsClients) -> None:
    other = clients.in_region("eu-west-1")
    assert other.region == other.ec2.meta.region_name == "eu-west-1"
    assert clients.in_region("eu-west-1") is other
    assert other.in_region("us-east-1") is clients
    assert clients.pricing.meta.region_name == "us-east-1"


def test_who_calls_is_asked_once(clients: AwsClients) -> None:
    assert (clients.caller().account, clients.caller().name) == ("123456789012", "moto")
    assert clients.calls == {"GetCallerIdentity": 1}


def test_a_refusal_that_comes_as_a_server_error_is_not_repeated(clients: AwsClients, served: EmulatedCloud) -> None:
    served.fail("RunInstances", "InsufficientInstanceCapacity")
    with pytest.raises(NoCapacity), clients.named("launch"):
        clients.ec2.run_instances(MinCount=1, MaxCount=1)
    assert served.calls["RunInstances"] == 1


def test_other_server_errors_are(clients: AwsClients, served: EmulatedCloud) -> None:
    served.fail("DescribeSubnets", "InternalError", times=1)
    with clients.named("look"):
        assert clients.ec2.describe_subnets()["Subnets"]
    assert served.calls["DescribeSubnets"] == 2


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, clients: AwsClients) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    nowhere = AwsClients("us-east-1")
    with pytest.raises(ProviderUnavailable, match=r"cannot look: .*check the network"), nowhere.named("look"):
        nowhere.ec2.describe_subnets()
