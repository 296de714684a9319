"""The policies suffice for what the product calls, and each action in them is needed. moto enforces IAM."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from starling.infra.clock import FakeClock
from starling.infra.errors import NotAuthorised, StoreAccessDenied
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.checkup import account, dry_runs, setup
from starling.infra.providers.aws.checkup.finding import Health
from starling.infra.providers.aws.choice import AwsChoice
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.inventory import find_resources, remove_resource
from starling.infra.providers.aws.market import Market
from starling.infra.providers.aws.provider import AwsProvider
from starling.infra.providers.aws.stack import StackOutputs, read_stack, store_uri
from starling.infra.records import Market as MarketKind
from starling.infra.records import NodeIntent, Offer
from starling.infra.store import Store, open_store
from starling.infra.store.s3 import S3Store
from tests.support.account import REGION, as_node, as_user_with, client, fresh_account, policy_of, set_up

SECTION = {"name": "aws", "region": REGION, "stack": "starling", "disk": 100}
OFFER = Offer(provider="aws", instance_type="m5.large", zone="us-east-1a", market=MarketKind.SPOT, price_per_hour=0.04)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackOutputs]:
    """Of one account for all tests: making one takes seconds."""
    with pytest.MonkeyPatch.context() as patch, fresh_account(patch):
        patch.setenv("STARLING_HOME", str(tmp_path_factory.mktemp("home")))
        set_up()
        yield read_stack(AwsClients(REGION), "starling")


@pytest.fixture(scope="module")
def policy(stack: StackOutputs) -> dict[str, Any]:
    return policy_of(stack.user_policy)


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    left = [
        statement | {"Action": actions}
        for statement in policy["Statement"]
        if (actions := [name for name in statement["Action"] if name != action])
    ]
    return policy | {"Statement": left}


def intent(run: str, node: str) -> NodeIntent:
    return NodeIntent(
        node=node, run=run, incarnation=0, slot=0, generation=0, offer=OFFER, wanted_at=0, authorised_until=None
    )


def life_of_a_node(clients: AwsClients, stack: StackOutputs) -> None:
    """Everything that a run asks of the provider."""
    uri = store_uri(stack.bucket, REGION)
    provider = AwsProvider(SECTION, open_store(uri).uri, clients=clients, clock=clients.clock)
    run = f"trial-{secrets.token_hex(4)}"
    node = f"{run}.0.0"
    provider.launch(intent(run, node), open_store(uri).uri)
    assert [machine.alive for machine in provider.list(run)] == [True]
    provider.terminate([node])
    provider.close(run)


def market(clients: AwsClients, _: StackOutputs) -> None:
    market = Market(clients, clients.clock)
    choice = AwsChoice.from_section(SECTION)
    assert market.offers(choice, 1, MarketKind.SPOT)
    assert market.offers(choice, 1, MarketKind.ON_DEMAND)


def collect_garbage(clients: AwsClients, stack: StackOutputs) -> None:
    store = open_store(store_uri(stack.bucket, REGION))
    assert isinstance(store, S3Store)
    for upload in store.unfinished_uploads():
        store.abort_upload(upload)
    for resource in find_resources(clients):
        remove_resource(clients, resource)


def examine(clients: AwsClients, stack: StackOutputs) -> None:
    """What `doctor` looks at; a missing permission is a finding of its own."""
    checks = [
        account.check_region(clients),
        account.check_quotas(clients),
        setup.check_stack(clients, "starling"),
        setup.check_bucket(clients, stack),
        setup.check_public_access(clients, stack),
        setup.check_network(clients, stack),
        setup.check_roles(clients, stack, "starling"),
        setup.check_spot_role(clients),
        setup.check_images(clients),
        dry_runs.check_permissions(clients, stack, "starling"),
    ]
    for finding in (finding for check in checks for finding in check):
        if finding.health is Health.FAIL:
            raise NotAuthorised(f"{finding.name}: {finding.says}; {finding.fix}")


def use_the_store(_: AwsClients, stack: StackOutputs) -> None:
    exercise(open_store(store_uri(stack.bucket, REGION)))


def exercise(store: Store) -> None:
    run = f"trial-{secrets.token_hex(4)}"
    key = f"runs/{run}/run.json"
    store.create(key, b"{}")
    assert [info.key for info in store.list(f"runs/{run}/")] == [key]
    store.stat(key)
    store.replace(key, b"{ }", store.get(key).version)
    store.delete(key)


WORK: list[Callable[[AwsClients, StackOutputs], None]] = [
    life_of_a_node,
    market,
    collect_garbage,
    examine,
    use_the_store,
]


def leave_something_behind(stack: StackOutputs) -> None:
    """For `gc` to find, made by the account's owner."""
    ec2, s3 = client("ec2"), client("s3")
    marks = tags.as_list(
        tags.run_tags(stack="starling", store_uri=store_uri(stack.bucket, REGION), run="trial", owner="me")
    )
    ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": marks}]
    )
    s3.create_multipart_upload(Bucket=stack.bucket, Key="store/runs/trial/checkpoints/1/part")


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_the_policy_suffices(
    work: Callable[[AwsClients, StackOutputs], None],
    stack: StackOutputs,
    policy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if work is collect_garbage:
        leave_something_behind(stack)
    with as_user_with(policy, monkeypatch):
        work(AwsClients(REGION, clock=FakeClock(time.time())), stack)


MISSED_IN = {
    "ec2:CreateFleet": life_of_a_node,
    "ec2:CreateLaunchTemplate": life_of_a_node,
    "ec2:DescribeInstances": life_of_a_node,
    "ec2:DescribeImages": life_of_a_node,
    "ec2:DescribeLaunchTemplates": life_of_a_node,
    "ec2:DescribeLaunchTemplateVersions": life_of_a_node,
    "ec2:DescribeSubnets": life_of_a_node,
    "ec2:DescribeRouteTables": life_of_a_node,
    "ec2:TerminateInstances": life_of_a_node,
    "ec2:DeleteLaunchTemplate": life_of_a_node,
    "cloudformation:DescribeStacks": life_of_a_node,
    "ssm:GetParameter": life_of_a_node,
    "ec2:DescribeSpotPriceHistory": market,
    "ec2:DescribeInstanceTypes": market,
    "ec2:DescribeInstanceTypeOfferings": market,
    "ec2:DescribeAvailabilityZones": market,
    "ec2:DescribeVolumes": collect_garbage,
    "ec2:DeleteVolume": collect_garbage,
    "ec2:DescribeFleets": collect_garbage,
    "ec2:DescribeRegions": examine,
    "ec2:RunInstances": examine,
    "servicequotas:GetServiceQuota": examine,
    "iam:GetInstanceProfile": examine,
    "iam:GetRole": examine,
}
"""Action -> where its absence shows."""
UNSEEN = {
    "iam:PassRole": "EC2 checks it by itself; moto does not",
    "ec2:CreateTags": "EC2 checks it by itself when something is made with tags; moto does not",
    "ec2:DeleteFleets": "fleets of type instant need it never; others would be a mistake",
    "ec2:DescribeVpcs": "only in `aws setup`",
    "ec2:GetSpotPlacementScores": "done without if it is refused: test_what_can_be_done_without",
    "pricing:GetProducts": "done without if it is refused: test_what_can_be_done_without",
    "sqs:ReceiveMessage": "done without if it is refused: test_what_can_be_done_without",
    "sqs:DeleteMessage": "done without if it is refused: test_what_can_be_done_without",
}
"""Actions whose absence no call shows here, and why."""


@pytest.mark.parametrize("action", MISSED_IN)
def test_a_missing_action_is_named(
    action: str, stack: StackOutputs, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if MISSED_IN[action] is collect_garbage:
        leave_something_behind(stack)
    with (
        as_user_with(without(policy, action), monkeypatch),
        pytest.raises(NotAuthorised, match=action),
    ):
        MISSED_IN[action](AwsClients(REGION, clock=FakeClock(time.time())), stack)


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"])
def test_a_missing_action_on_the_store_is_refused(
    action: str, stack: StackOutputs, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_user_with(without(policy, action), monkeypatch), pytest.raises(StoreAccessDenied):
        use_the_store(AwsClients(REGION), stack)


@pytest.mark.parametrize(
    "action",
    ["ec2:GetSpotPlacementScores", "pricing:GetProducts", "sqs:ReceiveMessage", "sqs:DeleteMessage"],
)
def test_what_can_be_done_without(
    action: str, stack: StackOutputs, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_user_with(without(policy, action), monkeypatch):
        life_of_a_node(AwsClients(REGION, clock=FakeClock(time.time())), stack)


def test_every_action_of_the_policy_is_looked_at(policy: dict[str, Any]) -> None:
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert {action for action in actions if not action.startswith("s3:")} == {*MISSED_IN, *UNSEEN}


def test_a_user_reaches_nothing_else_in_the_bucket(
    stack: StackOutputs, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_user_with(policy, monkeypatch), pytest.raises(StoreAccessDenied):
        open_store(f"s3://{stack.bucket}/private?region={REGION}").put("k", b"")


def test_a_node_reaches_its_store_and_nothing_else(stack: StackOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_node(stack.node_role, monkeypatch):
        exercise(open_store(store_uri(stack.bucket, REGION)))
        elsewhere = open_store(f"s3://{stack.bucket}/private?region={REGION}")
        for refused in (lambda: elsewhere.put("k", b""), lambda: elsewhere.get("k"), lambda: elsewhere.delete("k")):
            with pytest.raises(StoreAccessDenied):
                refused()


@pytest.mark.parametrize("call", ["describe_instances", "describe_volumes", "describe_spot_price_history"])
def test_a_node_may_not_look_at_ec2(call: str, stack: StackOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = AwsClients(REGION)
    with (
        as_node(stack.node_role, monkeypatch),
        pytest.raises(NotAuthorised, match=r"ec2:Describe"),
        clients.named("look"),
    ):
        getattr(clients.ec2, call)()


def test_a_node_may_end_no_machine(stack: StackOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = AwsClients(REGION)
    with (
        as_node(stack.node_role, monkeypatch),
        pytest.raises(NotAuthorised, match="ec2:TerminateInstances"),
        clients.named("end a machine"),
    ):
        clients.ec2.terminate_instances(InstanceIds=["i-0123456789abcdef0"])
