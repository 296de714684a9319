"""Resources and conditions of the policies, by IAM's rules: moto checks only actions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from starling.infra.providers.aws.naming import Site
from starling.infra.providers.aws.permissions import Permission, node_permissions, policy, user_permissions
from tests.support.policy_rules import allows

SITE = Site(account="123456789012", region="us-east-1", stack="starling")
EC2 = "arn:aws:ec2:us-east-1:123456789012:"
GROUP = f"{EC2}security-group/sg-0123456789abcdef0"
USER = policy(user_permissions(SITE, GROUP))
NODE = policy(node_permissions(SITE))
BUCKET = "arn:aws:s3:::starling-123456789012-us-east-1"
MARKS = {"starling:project": "starling", "starling:stack": "starling", "starling:run": "trial"}
AS_REQUEST = {f"aws:RequestTag/{key}": value for key, value in MARKS.items()}
AS_RESOURCE = {f"aws:ResourceTag/{key}": value for key, value in MARKS.items()}
BASE = {key: value for key, value in AS_RESOURCE.items() if not key.endswith(":run")}
"""Tags of the stack's own template."""
LONGEST_POLICY = 6144
"""Characters of a managed policy: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
PACKAGE = Path(__file__).parents[3] / "starling" / "infra" / "providers" / "aws"


@pytest.mark.parametrize("kind", ["instance/*", "volume/*", "fleet/*"])
@pytest.mark.parametrize("action", ["ec2:RunInstances", "ec2:CreateFleet"])
def test_only_what_is_tagged_as_ours_is_launched(action: str, kind: str) -> None:
    assert allows(USER, action, EC2 + kind, AS_REQUEST)
    assert not allows(USER, action, EC2 + kind)
    assert not allows(USER, action, EC2 + kind, AS_REQUEST | {"aws:RequestTag/starling:stack": "another"})


def test_only_our_templates_are_launched_from() -> None:
    template = f"{EC2}launch-template/lt-1"
    assert allows(USER, "ec2:RunInstances", template, AS_RESOURCE)
    assert not allows(USER, "ec2:RunInstances", template)


def test_our_stack_is_looked_for_in_every_region_and_no_other_stack() -> None:
    """`gc --regions all` does."""
    for region in ("us-east-1", "eu-west-1"):
        stacks = f"arn:aws:cloudformation:{region}:123456789012:stack"
        assert allows(USER, "cloudformation:DescribeStacks", f"{stacks}/starling/1")
        assert not allows(USER, "cloudformation:DescribeStacks", f"{stacks}/starling-2/1")


def test_only_our_security_group_is_launched_with() -> None:
    assert allows(USER, "ec2:RunInstances", GROUP)
    assert not allows(USER, "ec2:RunInstances", f"{EC2}security-group/sg-open")
    assert not allows(USER, "ec2:RunInstances", f"{EC2}key-pair/mine")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("ec2:TerminateInstances", "instance/i-1"),
        ("ec2:DeleteLaunchTemplate", "launch-template/lt-1"),
        ("ec2:DeleteVolume", "volume/vol-1"),
        ("ec2:DeleteFleets", "fleet/fleet-1"),
    ],
)
def test_only_what_a_run_made_is_removed(action: str, resource: str) -> None:
    assert allows(USER, action, EC2 + resource, AS_RESOURCE)
    assert not allows(USER, action, EC2 + resource)
    assert not allows(USER, action, EC2 + resource, BASE), "the stack's own must stay"
    assert not allows(USER, action, EC2 + resource, AS_RESOURCE | {"aws:ResourceTag/starling:stack": "another"})


def test_tags_are_given_only_to_what_is_being_made() -> None:
    instance = f"{EC2}instance/i-1"
    assert allows(USER, "ec2:CreateTags", instance, {"ec2:CreateAction": "CreateFleet"})
    assert not allows(USER, "ec2:CreateTags", instance), "tagging a foreign machine would make it ours to end"


def test_only_the_node_role_is_passed_and_only_to_ec2() -> None:
    role = "arn:aws:iam::123456789012:role/starling-node-us-east-1"
    to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert allows(USER, "iam:PassRole", role, to_ec2)
    assert not allows(USER, "iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"})
    assert not allows(USER, "iam:PassRole", "arn:aws:iam::123456789012:role/admin", to_ec2)


@pytest.mark.parametrize("document", [USER, NODE], ids=["user", "node"])
def test_only_the_store_is_reached(document: dict[str, object]) -> None:
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert allows(document, action, f"{BUCKET}/store/runs/trial/run.json")
        assert not allows(document, action, f"{BUCKET}/private/k")
        assert not allows(document, action, f"{BUCKET}/store-2/k")
        assert not allows(document, action, "arn:aws:s3:::another/store/k")
    assert allows(document, "s3:ListBucket", BUCKET, {"s3:prefix": "store/runs/"})
    assert not allows(document, "s3:ListBucket", BUCKET, {"s3:prefix": ""})
    assert not allows(document, "s3:ListBucket", BUCKET)


def test_a_node_may_do_nothing_but_use_its_store() -> None:
    actions = {action for statement in NODE["Statement"] for action in statement["Action"]}
    assert actions <= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListBucket"}


@pytest.mark.parametrize("document", [USER, NODE], ids=["user", "node"])
def test_no_action_is_a_pattern(document: dict[str, list[dict[str, list[str]]]]) -> None:
    assert not [action for statement in document["Statement"] for action in statement["Action"] if "*" in action]


def test_the_policy_fits_into_one() -> None:
    longest = Site(account="123456789012", region="ap-southeast-1", stack="s" * 31)
    group = longest.arn("ec2", "security-group/sg-0123456789abcdef0")
    document = json.dumps(policy(user_permissions(longest, group)), separators=(",", ":"))
    assert len(document) <= LONGEST_POLICY


def test_the_policy_holds_just_the_calls_that_stand_in_the_source() -> None:
    permitted = {action for statement in USER["Statement"] for action in statement["Action"]}
    calls = re.compile(r"""(?<!mypy_boto3_)ec2\.(?:get_paginator\(\s*["'])?([a-z]+_[a-z_]+)""")
    named = {name for path in PACKAGE.rglob("*.py") for name in calls.findall(path.read_text())} - {"get_paginator"}
    called = {"ec2:" + name.replace("_", "") for name in named}
    assert called ^ {action.lower() for action in permitted if action.startswith("ec2:")} == {"ec2:createtags"}


def test_every_permission_says_why() -> None:
    statements: list[Permission] = [*user_permissions(SITE, GROUP), *node_permissions(SITE)]
    assert all(why.strip() for permission in statements for why in permission.actions.values())
