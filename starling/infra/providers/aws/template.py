"""The CloudFormation template behind `starling aws setup`: a pure function of where it goes.

It creates: a closed bucket for the store, the nodes' role, a policy for users, a security group that nobody outside can
reach, a base launch template, and a queue of EC2's events. Nothing in it costs money while no run is on, but for what
the store holds (docs/aws.md).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starling.infra.providers.aws import tags
from starling.infra.providers.aws.naming import Site
from starling.infra.providers.aws.permissions import node_permissions, policy, user_permissions

ROOT_DEVICE = "/dev/sda1"
"""Of the Deep Learning AMI (Ubuntu). Runs with another image name its device in their own template."""
ABORT_UPLOADS_DAYS = 2


def template(site: Site, *, vpc: str, public_addresses: bool) -> dict[str, Any]:
    """The whole stack. `public_addresses`: nodes need one to reach the internet."""
    resources = {
        "Bucket": _bucket(site),
        "BucketPolicy": _bucket_policy(site),
        "NodeRole": _node_role(site),
        "NodeProfile": _node_profile(site),
        "SecurityGroup": _security_group(site, vpc),
        "SecurityGroupSelf": _security_group_self(),
        "LaunchTemplate": _launch_template(site, public_addresses=public_addresses),
        "Queue": _queue(site),
        "QueuePolicy": _queue_policy(),
        "NoticeRule": _rule("Spot interruptions and rebalance recommendations", _NOTICES),
        "EndRule": _rule("Instances that stop or end", _ENDS),
        "UserPolicy": _user_policy(site),
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Starling: trains models on interruptible machines. Made by `starling aws setup`.",
        "Resources": resources,
        "Outputs": _outputs(site, vpc) | {"Revision": {"Value": revision(resources)}},
    }


def revision(resources: dict[str, Any]) -> str:
    """Tells two versions of the template apart."""
    return hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]


def _bucket(site: Site) -> dict[str, Any]:
    """Kept when the stack is deleted: it holds the user's results."""
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": site.bucket,
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "BucketEncryption": {
                "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
            "LifecycleConfiguration": {
                "Rules": [
                    {
                        "Id": "abort-unfinished-uploads",
                        "Status": "Enabled",
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_UPLOADS_DAYS},
                    }
                ]
            },
            "Tags": _tag_list(site),
        },
    }


def _bucket_policy(site: Site) -> dict[str, Any]:
    bucket = f"arn:{site.partition}:s3:::{site.bucket}"
    return {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {
            "Bucket": {"Ref": "Bucket"},
            "PolicyDocument": _document(
                {
                    "Sid": "OnlyTls",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket, f"{bucket}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ),
        },
    }


def _node_role(site: Site) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": site.node_role,
            "Description": "What Starling's nodes may do: read and write their store",
            "AssumeRolePolicyDocument": _document(
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "ec2.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ),
            "Policies": [{"PolicyName": "store", "PolicyDocument": policy(node_permissions(site))}],
            "Tags": _tag_list(site),
        },
    }


def _node_profile(site: Site) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {"InstanceProfileName": site.node_role, "Roles": [{"Ref": "NodeRole"}]},
    }


def _security_group(site: Site, vpc: str) -> dict[str, Any]:
    return {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {
            "GroupDescription": "Starling nodes: they reach each other and the internet, nobody reaches them",
            "VpcId": vpc,
            "SecurityGroupEgress": [{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}],
            "Tags": _tag_list(site),
        },
    }


def _security_group_self() -> dict[str, Any]:
    group = {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}
    return {
        "Type": "AWS::EC2::SecurityGroupIngress",
        "Properties": {
            "GroupId": group,
            "IpProtocol": "-1",
            "SourceSecurityGroupId": group,
            "Description": "Nodes among themselves",
        },
    }


def _launch_template(site: Site, *, public_addresses: bool) -> dict[str, Any]:
    network = {"DeviceIndex": 0, "Groups": [{"Fn::GetAtt": ["SecurityGroup", "GroupId"]}], "DeleteOnTermination": True}
    if public_addresses:
        network["AssociatePublicIpAddress"] = True
    data = {
        "IamInstanceProfile": {"Arn": {"Fn::GetAtt": ["NodeProfile", "Arn"]}},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": ROOT_DEVICE,
                "Ebs": {"VolumeType": "gp3", "VolumeSize": 100, "Encrypted": True, "DeleteOnTermination": True},
            }
        ],
        "NetworkInterfaces": [network],
    }
    return {
        "Type": "AWS::EC2::LaunchTemplate",
        "Properties": {
            "LaunchTemplateName": site.base_template,
            "LaunchTemplateData": data,
            "TagSpecifications": [{"ResourceType": "launch-template", "Tags": _tag_list(site)}],
        },
    }


def _queue(site: Site) -> dict[str, Any]:
    """Notices are old after minutes; an hour bridges a controller that is restarted."""
    return {
        "Type": "AWS::SQS::Queue",
        "Properties": {
            "QueueName": site.queue,
            "MessageRetentionPeriod": 3600,
            "SqsManagedSseEnabled": True,
            "Tags": _tag_list(site),
        },
    }


def _queue_policy() -> dict[str, Any]:
    queue = {"Fn::GetAtt": ["Queue", "Arn"]}
    rules = [{"Fn::GetAtt": ["NoticeRule", "Arn"]}, {"Fn::GetAtt": ["EndRule", "Arn"]}]
    return {
        "Type": "AWS::SQS::QueuePolicy",
        "Properties": {
            "Queues": [{"Ref": "Queue"}],
            "PolicyDocument": _document(
                {
                    "Sid": "OurRulesMaySend",
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue,
                    "Condition": {"ArnEquals": {"aws:SourceArn": rules}},
                },
                {
                    "Sid": "OnlyTls",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "sqs:*",
                    "Resource": queue,
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
            ),
        },
    }


_NOTICES = {
    "source": ["aws.ec2"],
    "detail-type": ["EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation"],
}
_ENDS = {
    "source": ["aws.ec2"],
    "detail-type": ["EC2 Instance State-change Notification"],
    "detail": {"state": ["shutting-down", "stopping", "stopped", "terminated"]},
}


def _rule(description: str, pattern: dict[str, Any]) -> dict[str, Any]:
    target = {"Id": "queue", "Arn": {"Fn::GetAtt": ["Queue", "Arn"]}}
    return {
        "Type": "AWS::Events::Rule",
        "Properties": {"Description": description, "EventPattern": pattern, "Targets": [target]},
    }


def _user_policy(site: Site) -> dict[str, Any]:
    group = {"Fn::Sub": site.arn("ec2", "security-group/${SecurityGroup.GroupId}")}
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "ManagedPolicyName": site.user_policy,
            "Description": "What `starling` needs to run and watch training",
            "PolicyDocument": policy(user_permissions(site, group)),
        },
    }


def _outputs(site: Site, vpc: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "Bucket": {"Ref": "Bucket"},
        "LaunchTemplateId": {"Ref": "LaunchTemplate"},
        "LaunchTemplateName": site.base_template,
        "SecurityGroup": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]},
        "NodeRole": {"Ref": "NodeRole"},
        "InstanceProfile": {"Ref": "NodeProfile"},
        "UserPolicy": {"Ref": "UserPolicy"},
        "QueueUrl": {"Ref": "Queue"},
        "Vpc": vpc,
    }
    return {name: {"Value": value} for name, value in values.items()}


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _tag_list(site: Site) -> list[dict[str, str]]:
    return [{"Key": tags.PROJECT, "Value": tags.OURS}, {"Key": tags.STACK, "Value": site.stack}]
