"""`starling aws setup` and `teardown`, as a user runs them, against the emulated cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner, Result

from starling.cli.app import app
from starling.infra.clock import FakeClock
from starling.infra.errors import Misconfigured, UsageError
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.network import find_vpc, places, subnets, wants_public_addresses
from starling.infra.providers.aws.setup import SPOT_SERVICE, carry_out, plan_setup
from starling.infra.providers.aws.stack import default_store_uri, read_stack, store_uri
from starling.infra.providers.aws.stack_progress import current_operation, first_failure
from starling.infra.region.cloud import EmulatedCloud
from starling.infra.store import open_store
from starling.orchestrator.runs import create_run
from tests.support.account import ACCOUNT, REGION, client, fresh_account
from tests.support.specs import spec

BUCKET = f"starling-{ACCOUNT}-{REGION}"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[EmulatedCloud]:
    monkeypatch.setenv("STARLING_HOME", str(tmp_path))
    with fresh_account(monkeypatch) as cloud:
        yield cloud


def starling(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def told(*arguments: str) -> dict[str, Any]:
    result = starling(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    return dict(json.loads(result.stdout))


def test_a_set_up_from_first_look_to_removal(cloud: EmulatedCloud) -> None:
    """STEPS: dry run, set-up, again, an outdated one, removal that keeps the bucket, set-up that takes it over, end."""
    looked = told("aws", "setup", "--dry-run")
    assert {change["what"] for change in looked["changes"]} == {"create"}
    assert looked["outputs"] is None
    assert cloud.calls["CreateStack"] == 0, "a dry run changes nothing"

    made = told("aws", "setup")
    assert made["changes"] == looked["changes"]
    assert made["outputs"]["bucket"] == BUCKET
    assert made["store"] == f"s3://{BUCKET}/store?region={REGION}"
    assert default_store_uri({"region": REGION, "stack": "starling"}) == made["store"]

    assert told("aws", "setup")["changes"] == []
    assert "nothing to do" in starling("aws", "setup").stdout
    assert (cloud.calls["CreateStack"], cloud.calls["UpdateStack"]) == (1, 0)

    outdate()
    changed = told("aws", "setup")
    assert [(change["what"], change["name"]) for change in changed["changes"]] == [("create", "EndRule")]
    assert cloud.calls["UpdateStack"] == 2

    open_store(made["store"]).put("runs/kept", b"a result")
    assert told("aws", "teardown", "--yes") == {
        "stack": "starling",
        "region": REGION,
        "removed": True,
        "bucket_kept": BUCKET,
    }
    with pytest.raises(Misconfigured, match=r"run `starling aws setup --region us-east-1` first"):
        read_stack(AwsClients(REGION), "starling")

    again = told("aws", "setup")
    assert [change["name"] for change in again["changes"] if change["what"] == "adopt"] == [BUCKET]
    assert open_store(made["store"]).get("runs/kept").data == b"a result"
    assert again["outputs"]["bucket"] == BUCKET

    assert told("aws", "teardown", "--yes", "--delete-bucket")["bucket_kept"] is None
    assert client("s3").list_buckets()["Buckets"] == []
    assert told("aws", "teardown", "--yes", "--delete-bucket")["removed"] is False


def outdate() -> None:
    """Leave the stack as an older version of Starling might have made it."""
    cloudformation = client("cloudformation")
    body = cloudformation.get_template(StackName="starling")["TemplateBody"]
    older = json.loads(body) if isinstance(body, str) else body
    older["Resources"].pop("EndRule")
    cloudformation.update_stack(
        StackName="starling", TemplateBody=json.dumps(older), Capabilities=["CAPABILITY_NAMED_IAM"]
    )


def test_teardown_refuses_while_a_run_is_not_over(cloud: EmulatedCloud) -> None:
    made = told("aws", "setup")
    run = create_run(open_store(made["store"]), spec(), name="alive").run
    result = starling("aws", "teardown", "--yes")
    assert isinstance(result.exception, Misconfigured)
    assert run in str(result.exception)
    assert read_stack(AwsClients(REGION), "starling").bucket == BUCKET


def test_teardown_refuses_while_a_machine_runs(cloud: EmulatedCloud) -> None:
    told("aws", "setup")
    marks = [{"Key": "starling:project", "Value": "starling"}, {"Key": "starling:stack", "Value": "starling"}]
    instance = client("ec2").run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": marks}],
    )["Instances"][0]["InstanceId"]
    result = starling("aws", "teardown", "--yes", "--delete-bucket")
    assert isinstance(result.exception, Misconfigured)
    assert instance in str(result.exception)


def test_teardown_takes_the_policy_from_who_has_it(cloud: EmulatedCloud) -> None:
    policy = told("aws", "setup")["outputs"]["user_policy"]
    iam = client("iam")
    iam.create_user(UserName="ada")
    iam.attach_user_policy(UserName="ada", PolicyArn=policy)
    told("aws", "teardown", "--yes")
    assert iam.list_attached_user_policies(UserName="ada")["AttachedPolicies"] == []


def test_teardown_takes_the_policy_from_everybody_page_by_page(
    cloud: EmulatedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starling.infra.region.roles.PAGE", 2)
    policy = told("aws", "setup")["outputs"]["user_policy"]
    iam = client("iam")
    for name in ("ada", "ben", "cyd"):
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
    iam.create_group(GroupName="lab")
    iam.attach_group_policy(GroupName="lab", PolicyArn=policy)
    said = starling("aws", "teardown", "--yes")
    assert said.exit_code == 0, said.exception
    assert "without the policy that refuses plain HTTP" in said.stdout
    having = [iam.list_attached_user_policies(UserName=name)["AttachedPolicies"] for name in ("ada", "ben", "cyd")]
    assert [*having, iam.list_attached_group_policies(GroupName="lab")["AttachedPolicies"]] == [[], [], [], []]
    assert iam.list_policies(Scope="Local")["Policies"] == []


def test_a_permission_set_must_be_mended_first(cloud: EmulatedCloud) -> None:
    """Nobody loses the policy meanwhile."""
    policy = told("aws", "setup")["outputs"]["user_policy"]
    iam, role = client("iam"), "AWSReservedSSO_Research_0123456789abcdef"
    iam.create_user(UserName="ada")
    iam.attach_user_policy(UserName="ada", PolicyArn=policy)
    iam.create_role(RoleName=role, Path="/aws-reserved/sso.amazonaws.com/", AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    with pytest.raises(ClientError, match="UnmodifiableEntity"):
        iam.detach_role_policy(RoleName=role, PolicyArn=policy)
    refused = starling("aws", "teardown", "--yes").exception
    assert isinstance(refused, Misconfigured)
    assert "from the permission set Research in IAM Identity Center first" in str(refused)
    assert len(iam.list_attached_user_policies(UserName="ada")["AttachedPolicies"]) == 1
    assert read_stack(AwsClients(REGION), "starling")


def test_a_spot_role_that_somebody_made_meanwhile_is_fine(cloud: EmulatedCloud) -> None:
    clients = AwsClients(REGION, clock=FakeClock())
    plan = plan_setup(clients, "starling", None)
    assert plan.makes_spot_role
    client("iam").create_service_linked_role(AWSServiceName=SPOT_SERVICE)
    with pytest.raises(ClientError, match=r"InvalidInput.*has been taken"):
        client("iam").create_service_linked_role(AWSServiceName=SPOT_SERVICE)
    carry_out(clients, plan, lambda _: None)
    assert read_stack(clients, "starling")


@pytest.mark.parametrize("verb", [("aws", "setup"), ("doctor",)])
def test_regions_of_china_are_refused(verb: tuple[str, ...], cloud: EmulatedCloud) -> None:
    refused = starling(*verb, "--region", "cn-north-1").exception
    assert isinstance(refused, UsageError)
    assert "cn-north-1 is in China" in str(refused)
    assert cloud.calls.total() == 0


def test_teardown_asks_and_nobody_answers(cloud: EmulatedCloud) -> None:
    told("aws", "setup")
    result = starling("aws", "teardown")
    assert "--yes" in str(result.exception)
    assert read_stack(AwsClients(REGION), "starling")


def test_delete_bucket_removes_versions_and_unfinished_uploads(cloud: EmulatedCloud) -> None:
    told("aws", "setup")
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=BUCKET, Key="store/k", Body=body)
    s3.delete_object(Bucket=BUCKET, Key="store/k")
    s3.create_multipart_upload(Bucket=BUCKET, Key="store/half")
    told("aws", "teardown", "--yes", "--delete-bucket")
    assert s3.list_buckets()["Buckets"] == []


def test_two_stacks_live_side_by_side(cloud: EmulatedCloud) -> None:
    first, second = told("aws", "setup"), told("aws", "setup", "--stack", "lab")
    assert first["outputs"]["bucket"] != second["outputs"]["bucket"]
    assert first["outputs"]["node_role"] != second["outputs"]["node_role"]


def test_a_region_without_a_default_vpc_says_what_to_do(cloud: EmulatedCloud) -> None:
    ec2 = client("ec2")
    vpc = find_vpc(AwsClients(REGION), None)
    for subnet in subnets(AwsClients(REGION), vpc).values():
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)
    result = starling("aws", "setup", "--dry-run")
    assert isinstance(result.exception, Misconfigured)
    assert "create-default-vpc" in str(result.exception)


def test_subnets_with_a_way_out_are_preferred(cloud: EmulatedCloud) -> None:
    ec2, clients = client("ec2"), AwsClients(REGION)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = {
        name: ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/{size}", AvailabilityZone=f"{REGION}a")
        for number, (name, size) in enumerate([("larger, cut off", 24), ("small, open", 28)])
    }
    ids = {name: answer["Subnet"]["SubnetId"] for name, answer in made.items()}
    assert subnets(clients, vpc) == {f"{REGION}a": ids["larger, cut off"]}
    assert not wants_public_addresses(places(clients, vpc))

    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=ids["small, open"])
    assert subnets(clients, vpc) == {f"{REGION}a": ids["small, open"]}
    assert wants_public_addresses(places(clients, vpc))


def test_the_first_failure_is_told_not_what_followed_from_it() -> None:
    def event(at: int, what: str, status: str, reason: str = "") -> Any:
        return {
            "EventId": str(at),
            "Timestamp": at,
            "LogicalResourceId": what,
            "ResourceType": "AWS::X",
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }

    events = [
        event(1, "starling", "CREATE_IN_PROGRESS"),
        event(2, "Queue", "CREATE_FAILED", "an old story"),
        event(3, "starling", "ROLLBACK_COMPLETE"),
        event(4, "starling", "UPDATE_IN_PROGRESS"),
        event(5, "NodeRole", "UPDATE_FAILED", "no permission for iam:PutRolePolicy"),
        event(6, "Queue", "UPDATE_FAILED", "Resource update cancelled"),
    ]
    newest = current_operation(reversed(events), "starling")
    assert [each["EventId"] for each in newest] == ["4", "5", "6"]
    assert first_failure(newest) == "NodeRole (AWS::X): no permission for iam:PutRolePolicy"


def test_the_store_of_a_stack_is_where_its_nodes_may_write(cloud: EmulatedCloud) -> None:
    told("aws", "setup")
    stack = read_stack(AwsClients(REGION, clock=FakeClock()), "starling")
    store = open_store(store_uri(stack.bucket, REGION))
    store.put("k", b"v")
    role = client("iam").get_role_policy(RoleName=stack.node_role, PolicyName="store")["PolicyDocument"]
    (objects,) = [each["Resource"] for each in role["Statement"] if "s3:PutObject" in each["Action"]]
    (key,) = [entry["Key"] for entry in client("s3").list_objects_v2(Bucket=stack.bucket)["Contents"]]
    assert f"arn:aws:s3:::{stack.bucket}/{key}".startswith(objects[0].removesuffix("*"))
