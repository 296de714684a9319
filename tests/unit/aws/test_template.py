"""The template: what it makes is closed, and CloudFormation would take it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from starling.infra.providers.aws.naming import Site
from starling.infra.providers.aws.setup import Change, differences
from starling.infra.providers.aws.template import template

VPC = "vpc-0123456789abcdef0"


def made(region: str = "us-east-1", *, public: bool = True, stack: str = "starling") -> dict[str, Any]:
    return template(Site(account="123456789012", region=region, stack=stack), vpc=VPC, public_addresses=public)


def properties(name: str) -> dict[str, Any]:
    return dict(made()["Resources"][name]["Properties"])


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_it_passes_cfn_lint(region: str, public: bool, tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(made(region, public=public)))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", region, "--", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_it_is_a_pure_function() -> None:
    assert made() == made()


def test_the_revision_tells_templates_apart() -> None:
    revisions = {
        made(region, public=public)["Outputs"]["Revision"]["Value"]
        for region in ("us-east-1", "eu-west-1")
        for public in (True, False)
    }
    assert len(revisions) == 4


def test_the_bucket_is_closed_and_kept() -> None:
    resource = made()["Resources"]["Bucket"]
    bucket = resource["Properties"]
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert "ExpirationInDays" not in rule, "nothing of the user's may ever expire"


def test_bucket_and_queue_take_tls_only() -> None:
    for name in ("BucketPolicy", "QueuePolicy"):
        denied = [
            statement
            for statement in properties(name)["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        ]
        assert [statement["Principal"] for statement in denied] == ["*"], name


def test_only_our_rules_write_to_the_queue() -> None:
    (allowed,) = [
        each for each in properties("QueuePolicy")["PolicyDocument"]["Statement"] if each["Effect"] == "Allow"
    ]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    assert allowed["Action"] == "sqs:SendMessage"
    assert len(allowed["Condition"]["ArnEquals"]["aws:SourceArn"]) == 2


def test_nobody_reaches_a_node_but_nodes() -> None:
    assert "SecurityGroupIngress" not in properties("SecurityGroup")
    ingress = [each for each in made()["Resources"].values() if each["Type"] == "AWS::EC2::SecurityGroupIngress"]
    (inside,) = ingress
    group = {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}
    assert inside["Properties"]["SourceSecurityGroupId"] == inside["Properties"]["GroupId"] == group
    assert "CidrIp" not in json.dumps(inside)


def test_machines_are_locked_down() -> None:
    data = properties("LaunchTemplate")["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    assert all(mapping["Ebs"]["Encrypted"] for mapping in data["BlockDeviceMappings"])
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "KeyName" not in data


def test_public_addresses_only_where_they_are_needed() -> None:
    for public in (True, False):
        data = made(public=public)["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
        assert data["NetworkInterfaces"][0].get("AssociatePublicIpAddress", False) is public


def test_names_are_within_what_aws_takes() -> None:
    site = Site(account="123456789012", region="ap-northeast-1", stack="s" * 31)
    assert len(site.bucket) <= 63
    assert max(len(site.node_role), len(site.user_policy)) <= 64
    assert len(site.queue) <= 80


def test_differences_name_what_changes() -> None:
    old, new = made(public=False), made()
    del old["Resources"]["Queue"]
    old["Resources"]["Old"] = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "old"}}
    assert differences(old, new) == [
        Change(what="change", kind="AWS::EC2::LaunchTemplate", name="starling-base"),
        Change(what="create", kind="AWS::SQS::Queue", name="starling-events"),
        Change(what="remove", kind="AWS::SNS::Topic", name="old"),
    ]


def test_nothing_differs_from_itself() -> None:
    assert differences(made(), made()) == []


def test_without_a_stack_everything_is_created() -> None:
    assert {change.what for change in differences(None, made())} == {"create"}


def test_new_outputs_alone_are_a_change() -> None:
    old = made()
    del old["Outputs"]["Vpc"]
    assert differences(old, made()) == [Change(what="change", kind="AWS::CloudFormation::Stack", name="outputs")]
