"""A set-up in a VPC that has not got a subnet in every zone: only what can be bought there is offered and tried."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from starling.infra.clock import FakeClock
from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.checkup.dry_runs import check_permissions
from starling.infra.providers.aws.checkup.finding import Health
from starling.infra.providers.aws.checkup.setup import check_network
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.network import places
from starling.infra.providers.aws.provider import AwsProvider
from starling.infra.providers.aws.setup import carry_out, plan_setup
from starling.infra.providers.aws.stack import read_stack
from starling.infra.region.cloud import EmulatedCloud
from tests.support.account import REGION, client, fresh_account

SECTION = {"name": "aws", "region": REGION, "stack": "starling", "instance_types": ["g5.xlarge"]}


@pytest.fixture(scope="module")
def account() -> Iterator[EmulatedCloud]:
    with pytest.MonkeyPatch.context() as patch, fresh_account(patch) as cloud:
        ec2 = client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20", AvailabilityZone=f"{REGION}b")
        clients = AwsClients(REGION, clock=FakeClock())
        carry_out(clients, plan_setup(clients, "starling", vpc), lambda _: None)
        yield cloud


@pytest.fixture
def cloud(account: EmulatedCloud) -> Iterator[EmulatedCloud]:
    account.calls.clear()
    yield account
    account.heal()


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_only_zones_with_a_subnet_are_offered(market: str, cloud: EmulatedCloud) -> None:
    provider = AwsProvider(SECTION, None)
    assert {offer.zone for offer in provider.offers(gpus=1, market=market)} == {f"{REGION}b"}
    cloud.calls.clear()
    provider.offers(gpus=1, market=market)
    assert not cloud.calls, "neither the market nor the set-up is asked for again"


def test_zones_without_a_subnet_are_a_wrong_setting_until_they_have_one(cloud: EmulatedCloud) -> None:
    provider = AwsProvider(SECTION | {"zones": [f"{REGION}a"]}, None)
    with pytest.raises(
        Misconfigured, match=r"offered in us-east-1a only.*subnets in us-east-1b: correct provider\.zones"
    ):
        provider.offers(gpus=1, market="spot")
    ec2 = client("ec2")
    vpc = read_stack(AwsClients(REGION), "starling").vpc
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.16.0/20", AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
    try:
        assert {offer.zone for offer in provider.offers(gpus=1, market="spot")} == {f"{REGION}a"}
    finally:
        ec2.delete_subnet(SubnetId=made)


def test_a_market_that_offers_nothing_is_no_wrong_setting(cloud: EmulatedCloud) -> None:
    assert AwsProvider(SECTION | {"max_price": 0.0001}, None).offers(gpus=1, market="spot") == []


def test_what_should_be_known_of_the_market_is_logged_once(
    cloud: EmulatedCloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "starling")
    cloud.fail("GetSpotPlacementScores", "UnauthorizedOperation")
    provider = AwsProvider(SECTION, None)
    for _ in range(3):
        provider.offers(gpus=1, market="spot")
    told = [record.getMessage() for record in caplog.records if "no placement scores" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("the market of us-east-1: ")


def test_doctor_tries_the_launch_in_a_subnet_of_the_set_up(cloud: EmulatedCloud) -> None:
    clients = AwsClients(REGION)
    findings = list(check_permissions(clients, read_stack(clients, "starling"), "starling"))
    assert [(finding.name, finding.health) for finding in findings] == [("permissions", Health.OK)]


def test_the_default_subnet_does_not_fit_the_group_of_another_vpc(cloud: EmulatedCloud) -> None:
    """As with EC2: moto would put the machine anywhere."""
    stack = read_stack(AwsClients(REGION), "starling")
    with pytest.raises(ClientError, match="belong to different networks"):
        client("ec2").run_instances(
            DryRun=True,
            MinCount=1,
            MaxCount=1,
            ImageId="ami-12345678",
            LaunchTemplate={"LaunchTemplateId": stack.template_id, "Version": "$Latest"},
        )


def test_data_that_pays_for_a_nat_gateway_is_remarked_on_until_there_is_an_endpoint(cloud: EmulatedCloud) -> None:
    ec2, clients = client("ec2"), AwsClients(REGION)
    stack = read_stack(clients, "starling")
    assert {found.name for found in check_network(clients, stack)} == {"network"}, "no way out at all, so no bill"
    subnet = places(clients, stack.vpc)[0].subnet
    nat = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
    table = ec2.create_route_table(VpcId=stack.vpc)["RouteTable"]["RouteTableId"]
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    try:
        network, told = check_network(clients, stack)
        assert (network.health, told.health) == (Health.OK, Health.WARN)
        assert f"from {REGION}b all data goes through a NAT gateway" in told.says
        assert f"--vpc-id {stack.vpc} --service-name com.amazonaws.{REGION}.s3" in (told.fix or "")
        ec2.create_vpc_endpoint(
            VpcId=stack.vpc, ServiceName=f"com.amazonaws.{REGION}.s3", VpcEndpointType="Gateway", RouteTableIds=[table]
        )
        assert [found.health for found in check_network(clients, stack)] == [Health.OK]
    finally:
        ec2.disassociate_route_table(AssociationId=association)
