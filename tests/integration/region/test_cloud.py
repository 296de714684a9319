"""What the emulated cloud does beyond moto, over HTTP, as boto3 sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.images import PARAMETERS
from tests.integration.region.conftest import Aws, Shop, wait_for


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the cloud's clock forward by so many seconds. To be named before the cloud, whose parts then have it."""
    ahead = [0.0]
    monkeypatch.setattr(EmulatedCloud, "now", lambda _cloud: time.time() + sum(ahead))
    return ahead.append


def codes(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [error["ErrorCode"] for error in answer["Errors"]]


def test_the_same_token_is_the_same_call(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    first = shop.ask(ClientToken="one")
    assert shop.ask(ClientToken="one") == first
    assert len(cloud.instances()) == 1
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        shop.ask("g4dn.xlarge", ClientToken="one")
    assert shop.ask(ClientToken="two") != first
    assert len(cloud.instances()) == 2


def test_many_at_once_with_one_token_buy_one(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.buy(ClientToken="one"), range(8)))
    assert answers == [answers[0]] * 8
    assert len(cloud.instances()) == 1


def test_a_call_that_was_refused_leaves_its_token_free(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    cloud.fail("CreateFleet", "InternalError", times=1)
    with pytest.raises(ClientError, match="InternalError"):
        shop.ask(ClientToken="one")
    assert len(shop.buy(ClientToken="one")) == 1


def test_an_answer_can_be_lost_after_the_call_was_done(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    cloud.fail("CreateFleet", "Unavailable", times=1, after=True)
    with pytest.raises(ClientError, match="Unavailable"):
        shop.ask(ClientToken="one")
    (bought,) = cloud.instances()
    assert shop.buy(ClientToken="one") == [bought.id]


def test_instances_of_run_instances_and_templates_have_tokens_too(cloud: EmulatedCloud, aws: Aws) -> None:
    ec2 = aws("ec2")
    ids = {
        ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1, ClientToken="t")["Instances"][0]["InstanceId"]
        for _ in range(2)
    }
    assert {each.id for each in cloud.instances()} == ids
    made = [
        ec2.create_launch_template(LaunchTemplateName="mine", LaunchTemplateData={"KeyName": "k"}, ClientToken="t")
        for _ in range(2)
    ]
    assert made[0]["LaunchTemplate"] == made[1]["LaunchTemplate"]


def test_the_cheapest_with_room_is_taken(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    assert shop.look(shop.buy()[0])["Placement"]["AvailabilityZone"] == "us-east-1b"
    cloud.capacity.set("g5.xlarge", "us-east-1b", "spot", 1)
    second = shop.ask()
    assert second["Errors"] == []  # the dry pool was not even tried
    assert shop.look(second["Instances"][0]["InstanceIds"][0])["Placement"]["AvailabilityZone"] == "us-east-1a"
    cloud.prices.set_spot("g5.xlarge", "us-east-1a", 0.9, time.time())
    assert shop.look(shop.buy("g5.xlarge", "g4dn.xlarge", zones=("a",))[0])["InstanceType"] == "g4dn.xlarge"


def test_what_can_be_had_is_given_and_the_rest_explained(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    cloud.capacity.set("*", "us-east-1a", "spot", 2)
    cloud.capacity.set("*", "us-east-1b", "spot", 1)
    answer = shop.ask(count=5)
    assert sum(len(group["InstanceIds"]) for group in answer["Instances"]) == 3
    assert codes(answer) == ["InsufficientInstanceCapacity"] * 2
    told = answer["Errors"][0]["LaunchTemplateAndOverrides"]
    assert told["Overrides"] == {"InstanceType": "g5.xlarge", "SubnetId": shop.subnets["us-east-1b"]}
    assert shop.ask(count=5)["Instances"] == []


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"override": {"MaxPrice": "0.01"}}, "SpotMaxPriceTooLow"),
        ({"zones": ("e",)}, "InvalidFleetConfiguration"),
        ({}, "MaxSpotInstanceCountExceeded"),
        ({"market": "on-demand"}, "VcpuLimitExceeded"),
    ],
)
def test_why_a_pool_is_refused(wish: dict[str, object], code: str, cloud: EmulatedCloud, aws: Aws) -> None:
    cloud.quotas.set("L-3819A6DF", 0 if code == "MaxSpotInstanceCountExceeded" else 8)
    cloud.quotas.set("L-DB2E81BA", 0)
    answer = Shop(aws("ec2")).ask(**wish)  # type: ignore[arg-type]
    assert answer["Instances"] == []
    assert set(codes(answer)) == {code}


def test_an_instance_has_what_its_template_says(cloud: EmulatedCloud, aws: Aws) -> None:
    ec2, iam = aws("ec2"), aws("iam")
    group = ec2.create_security_group(GroupName="g", Description="g")["GroupId"]
    iam.create_role(RoleName="node", AssumeRolePolicyDocument="{}")
    profile = iam.create_instance_profile(InstanceProfileName="node")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    shop = Shop(
        ec2,
        user_data="#!/bin/sh\necho hello\n",
        IamInstanceProfile={"Arn": profile},
        NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group], "DeleteOnTermination": True}],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"},
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 77, "Encrypted": True, "DeleteOnTermination": True}}
        ],
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "disk", "Value": "yes"}]}],
    )
    (bought,) = shop.buy(tags={"starling:node": "r.0.0"})
    seen = shop.look(bought)
    tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
    assert tags["starling:node"] == "r.0.0"
    assert [each["GroupId"] for each in seen["SecurityGroups"]] == [group]
    assert seen["IamInstanceProfile"]["Arn"] == profile
    assert (seen["MetadataOptions"]["HttpTokens"], seen["MetadataOptions"]["InstanceMetadataTags"]) == (
        "required",
        "enabled",
    )
    assert seen["InstanceLifecycle"] == "spot"
    assert seen["SpotInstanceRequestId"].startswith("sir-")
    (volume,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [bought]}])["Volumes"]
    assert (volume["Size"], volume["Encrypted"], volume["Tags"]) == (77, True, [{"Key": "disk", "Value": "yes"}])
    (view,) = cloud.instances()
    assert view.user_data == "#!/bin/sh\necho hello\n"
    assert view.profile == "node"
    ec2.terminate_instances(InstanceIds=[bought])
    assert ec2.describe_volumes()["Volumes"] == []


def test_a_version_takes_over_what_its_source_has(cloud: EmulatedCloud, aws: Aws) -> None:
    shop = Shop(aws("ec2"), user_data="#!/bin/sh\n", KeyName="mine")
    shop.ec2.create_launch_template_version(
        LaunchTemplateName="shop", SourceVersion="1", LaunchTemplateData={"KeyName": "other"}
    )
    (bought,) = shop.buy()
    assert shop.look(bought)["KeyName"] == "other"
    (view,) = cloud.instances()
    assert view.user_data == "#!/bin/sh\n"


def test_instant_fleets_are_shown_to_those_who_name_them(aws: Aws) -> None:
    shop = Shop(aws("ec2"))
    fleet = shop.ask()["FleetId"]
    assert shop.ec2.describe_fleets()["Fleets"] == []
    (seen,) = shop.ec2.describe_fleets(FleetIds=[fleet])["Fleets"]
    assert seen["Type"] == "instant"


def test_an_instant_fleet_tells_what_came_of_it(cloud: EmulatedCloud, aws: Aws) -> None:
    """Also to those whose repeated call was told the fleet's id alone."""
    shop = Shop(aws("ec2"))
    cloud.capacity.set("*", "us-east-1a", "spot", 1)
    first = shop.ask(ClientToken="one", zones=("a",), count=2)
    cloud.forget_fleets()
    assert shop.ask(ClientToken="one", zones=("a",), count=2) == {"FleetId": first["FleetId"]}
    (told,) = shop.ec2.describe_fleets(FleetIds=[first["FleetId"]])["Fleets"]
    assert [each["InstanceIds"] for each in told["Instances"]] == [each["InstanceIds"] for each in first["Instances"]]
    assert [each["ErrorCode"] for each in told["Errors"]] == codes(first) == ["InsufficientInstanceCapacity"]
    with pytest.raises(ClientError, match=r"InvalidFleetId\.NotFound"):
        shop.ec2.describe_fleets(FleetIds=["fleet-00000000-0000-0000-0000-000000000000"])


def test_a_call_takes_two_hundred_filter_values(aws: Aws) -> None:
    states = {"Name": "instance-state-name", "Values": ["running", "pending"]}
    for count in (198, 199):
        nodes = {"Name": "tag:node", "Values": [str(number) for number in range(count)]}
        if count + 2 <= 200:
            assert aws("ec2").describe_instances(Filters=[nodes, states])["Reservations"] == []
        else:
            with pytest.raises(ClientError, match="FilterLimitExceeded"):
                aws("ec2").describe_instances(Filters=[nodes, states])


def test_prices_as_ec2_and_the_pricing_api_tell_them(cloud: EmulatedCloud, aws: Aws) -> None:
    ec2 = aws("ec2")
    day = 86400.0
    rows = ec2.describe_spot_price_history(
        InstanceTypes=["g5.xlarge"], ProductDescriptions=["Linux/UNIX"], StartTime=time.time() - 3 * day
    )["SpotPriceHistory"]
    assert {row["AvailabilityZone"] for row in rows} == {f"us-east-1{zone}" for zone in "abcdf"}
    assert rows == sorted(rows, key=lambda row: row["Timestamp"], reverse=True)
    assert len({row["SpotPrice"] for row in rows}) > 10
    wanted = [
        {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "g5.xlarge"},
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "us-east-1"},
    ]
    (product,) = aws("pricing").get_products(ServiceCode="AmazonEC2", Filters=wanted)["PriceList"]
    (term,) = json.loads(product)["terms"]["OnDemand"].values()
    assert [rate["pricePerUnit"] for rate in term["priceDimensions"].values()] == [{"USD": "1.0060000000"}]


def test_placement_scores_follow_capacity(cloud: EmulatedCloud, aws: Aws) -> None:
    def scores() -> dict[str, int]:
        answer = aws("ec2").get_spot_placement_scores(
            InstanceTypes=["g5.xlarge"], TargetCapacity=4, SingleAvailabilityZone=True, RegionNames=["us-east-1"]
        )
        return {each["AvailabilityZoneId"]: each["Score"] for each in answer["SpotPlacementScores"]}

    zones = aws("ec2").describe_availability_zones()["AvailabilityZones"]
    ids = {zone["ZoneName"]: zone["ZoneId"] for zone in zones}
    before = scores()
    assert before[ids["us-east-1a"]] == 9
    assert before[ids["us-east-1e"]] == 1  # g5 is not offered there
    cloud.capacity.set("*", "us-east-1a", "spot", 1)
    assert scores()[ids["us-east-1a"]] == 2


def test_quotas_and_images_can_be_read(cloud: EmulatedCloud, aws: Aws) -> None:
    cloud.quotas.set("L-3819A6DF", 24)
    quota = aws("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")["Quota"]
    assert (quota["QuotaName"], quota["Value"]) == ("All G and VT Spot Instance Requests", 24)
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        aws("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")
    image = aws("ssm").get_parameter(Name=PARAMETERS[0])["Parameter"]["Value"]
    (found,) = aws("ec2").describe_images(ImageIds=[image])["Images"]
    assert found["RootDeviceName"] == "/dev/sda1"


@pytest.mark.parametrize(
    ("service", "method", "arguments", "code"),
    [
        ("ec2", "describe_instances", {}, "RequestLimitExceeded"),
        ("sts", "get_caller_identity", {}, "ExpiredToken"),
        ("ssm", "get_parameter", {"Name": "x"}, "AccessDeniedException"),
        ("cloudformation", "describe_stacks", {}, "Throttling"),
    ],
)
def test_any_call_can_be_made_to_fail(
    service: str, method: str, arguments: dict[str, str], code: str, cloud: EmulatedCloud, aws: Aws
) -> None:
    client = aws(service)
    cloud.fail("*", code, times=1, message="because")
    with pytest.raises(ClientError, match=rf"\({code}\).*because"):
        getattr(client, method)(**arguments)
    cloud.heal()
    if service != "ssm":
        getattr(client, method)(**arguments)
    assert sum(cloud.calls.values()) >= 1


def test_throttling_ends(later: Callable[[float], None], cloud: EmulatedCloud, aws: Aws) -> None:
    ec2 = aws("ec2")
    cloud.throttle(600)
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        ec2.describe_instances()
    later(600)
    assert ec2.describe_instances()["Reservations"] == []
    assert cloud.calls["DescribeInstances"] == 2


def test_an_interruption_is_announced_and_then_comes(
    later: Callable[[float], None], cloud: EmulatedCloud, aws: Aws
) -> None:
    events, sqs, shop = aws("events"), aws("sqs"), Shop(aws("ec2"))
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["aws.ec2"]}))
    events.put_targets(Rule="r", Targets=[{"Id": "q", "Arn": arn}])
    (bought,) = shop.buy()
    cloud.recommend_rebalance(bought)
    cloud.interrupt(bought, notice_seconds=600)
    assert shop.look(bought)["State"]["Name"] == "running"
    later(600)
    wait_for("its end", lambda: shop.look(bought)["State"]["Name"] == "terminated")
    assert shop.look(bought)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    told: list[tuple[str, str | None]] = []

    def all_told() -> bool:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            event = json.loads(message["Body"])
            assert event["detail"]["instance-id"] == bought
            told.append((event["detail-type"], event["detail"].get("state")))
        return len(told) >= 6

    wait_for("all events", all_told)
    state = "EC2 Instance State-change Notification"
    assert sorted(told, key=str) == sorted(
        [
            ("EC2 Instance Rebalance Recommendation", None),
            ("EC2 Spot Instance Interruption Warning", None),
            *((state, name) for name in ("pending", "running", "shutting-down", "terminated")),
        ],
        key=str,
    )


def test_the_fault_injection_service_interrupts(cloud: EmulatedCloud, aws: Aws) -> None:
    fis, shop = aws("fis"), Shop(aws("ec2"))
    (bought,) = shop.buy()
    experiment = fis.create_experiment_template(
        clientToken="t",
        description="interrupt one",
        roleArn="arn:aws:iam::123456789012:role/fis",
        stopConditions=[{"source": "none"}],
        targets={
            "node": {
                "resourceType": "aws:ec2:spot-instance",
                "resourceArns": [f"arn:aws:ec2:us-east-1:123456789012:instance/{bought}"],
                "selectionMode": "ALL",
            }
        },
        actions={
            "interrupt": {
                "actionId": "aws:ec2:send-spot-instance-interruptions",
                "parameters": {"durationBeforeInterruption": "PT2M"},
                "targets": {"SpotInstances": "node"},
            }
        },
    )["experimentTemplate"]["id"]
    assert cloud.warned(bought).taken_at is None
    fis.start_experiment(clientToken="t", experimentTemplateId=experiment)
    taken_at = cloud.warned(bought).taken_at
    assert taken_at is not None
    assert 100 < taken_at - time.time() <= 120


def test_only_one_cloud_at_a_time(cloud: EmulatedCloud) -> None:
    with pytest.raises(RuntimeError, match="another emulated cloud"), EmulatedCloud():
        pass


def test_a_new_cloud_knows_nothing_of_the_last_one() -> None:
    for _ in range(2):
        with EmulatedCloud() as cloud:
            assert cloud.instances() == []
            assert cloud.calls == {}
            from tests.integration.region.conftest import clients_of

            Shop(clients_of(cloud.environment)("ec2")).buy()
            assert len(cloud.instances()) == 1
