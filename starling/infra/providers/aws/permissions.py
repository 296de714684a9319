"""What nodes and users of Starling may do, and why: the one list behind the policies, `doctor` and docs/aws.md.

Resources and conditions follow what the AWS Service Authorization Reference says each action supports:
https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starling.infra.providers.aws import tags
from starling.infra.providers.aws.naming import STORE_PREFIX, Site


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """One statement of a policy."""

    sid: str
    actions: Mapping[str, str]
    """Action -> why it is needed."""
    resources: list[Any]
    """ARNs, or references of CloudFormation's to them."""
    condition: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def statement(self) -> dict[str, Any]:
        body = {"Sid": self.sid, "Effect": "Allow", "Action": sorted(self.actions), "Resource": self.resources}
        return body | ({"Condition": dict(self.condition)} if self.condition else {})


def policy(permissions: list[Permission]) -> dict[str, Any]:
    """As IAM takes it."""
    return {"Version": "2012-10-17", "Statement": [permission.statement() for permission in permissions]}


def node_permissions(site: Site) -> list[Permission]:
    """A node reads and writes the store. It ends itself by shutting down, which needs no permission."""
    return _store(site)


def user_permissions(site: Site, security_group: Any) -> list[Permission]:
    """Everything that `starling` calls, besides `aws setup` and `aws teardown`. `security_group`: its id."""
    return [
        *_store(site),
        _bucket_care(site),
        _look(),
        _look_at_the_account(site),
        *_launch(site, security_group),
        _tag(site),
        _release(site),
        *_rest(site),
    ]


def _store(site: Site) -> list[Permission]:
    bucket = f"arn:{site.partition}:s3:::{site.bucket}"
    return [
        Permission(
            sid="StoreObjects",
            actions={
                "s3:GetObject": "read records, datasets, code and checkpoints",
                "s3:PutObject": "write them",
                "s3:DeleteObject": "remove checkpoints that are no longer kept",
                "s3:AbortMultipartUpload": "take back an upload that failed halfway",
            },
            resources=[f"{bucket}/{STORE_PREFIX}/*"],
        ),
        Permission(
            sid="StoreListing",
            actions={"s3:ListBucket": "find runs, nodes, events and checkpoints"},
            resources=[bucket],
            condition={"StringLike": {"s3:prefix": f"{STORE_PREFIX}/*"}},
        ),
    ]


def _bucket_care(site: Site) -> Permission:
    return Permission(
        sid="BucketCare",
        actions={
            "s3:ListBucketMultipartUploads": "`gc`: find uploads that nobody finished",
            "s3:GetBucketPublicAccessBlock": "`doctor`: see that the bucket is closed to the public",
        },
        resources=[f"arn:{site.partition}:s3:::{site.bucket}"],
    )


def _look() -> Permission:
    """EC2 knows no resources or conditions for these."""
    return Permission(
        sid="Look",
        actions={
            "ec2:DescribeInstances": "list a run's machines",
            "ec2:DescribeInstanceTypes": "GPUs and memory of instance types",
            "ec2:DescribeInstanceTypeOfferings": "which zones sell a type",
            "ec2:DescribeSpotPriceHistory": "spot prices, for `offers`, `prices` and every decision to buy",
            "ec2:GetSpotPlacementScores": "how likely spot capacity is, zone by zone",
            "ec2:DescribeImages": "the image's root volume",
            "ec2:DescribeVpcs": "the default VPC",
            "ec2:DescribeSubnets": "the subnet of each zone",
            "ec2:DescribeRouteTables": "`doctor`: whether nodes reach the internet",
            "ec2:DescribeAvailabilityZones": "zones, by name and by id",
            "ec2:DescribeRegions": "regions the account may use: `offers`, `prices`, `gc`, `doctor`",
            "ec2:DescribeLaunchTemplates": "`gc`: find templates of ended runs",
            "ec2:DescribeLaunchTemplateVersions": "read the stack's template, to make a run's from it",
            "ec2:DescribeVolumes": "`gc`: find volumes that outlived their machine",
            "ec2:DescribeFleets": "what a repeated launch bought; `gc`: find launch requests that are still open",
            "pricing:GetProducts": "on-demand prices",
            "servicequotas:GetServiceQuota": "`doctor`: how many vCPUs you may have",
        },
        resources=["*"],
    )


def _look_at_the_account(site: Site) -> Permission:
    spot_role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    return Permission(
        sid="LookAtSetup",
        actions={
            "cloudformation:DescribeStacks": "find bucket, template and queue by the stack's name",
            "iam:GetInstanceProfile": "`doctor`: see that nodes get their role",
            "iam:GetRole": "`doctor`: see that EC2 may ask for spot capacity in your name",
        },
        resources=[
            site.arn("cloudformation", f"stack/{site.stack}/*", region="*"),  # `gc --regions all`
            site.arn("iam", f"instance-profile/{site.node_role}", region=""),
            site.arn("iam", spot_role, region=""),
        ],
    )


def _launch(site: Site, security_group: Any) -> list[Permission]:
    launch = {
        "ec2:CreateFleet": "launch a node: one request for one machine, out of several types and zones",
        "ec2:RunInstances": "what CreateFleet does in your name",
    }
    return [
        Permission(
            sid="LaunchTagged",
            actions=launch | {"ec2:CreateLaunchTemplate": "a run's own template: user data, image, disk"},
            resources=site.ec2("instance", "volume", "fleet", "launch-template"),
            condition={"StringEquals": {f"aws:RequestTag/{key}": value for key, value in _ours(site).items()}},
        ),
        Permission(
            sid="LaunchFromOurTemplates",
            actions=launch,
            resources=site.ec2("launch-template"),
            condition={"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in _ours(site).items()}},
        ),
        Permission(
            sid="LaunchWith",
            actions=launch,
            resources=[
                *site.ec2("image", "snapshot", "subnet", "network-interface", "spot-instances-request"),
                security_group,
            ],
        ),
        Permission(
            sid="GiveNodesTheirRole",
            actions={"iam:PassRole": "launch nodes with the node role, and with no other"},
            resources=[site.arn("iam", f"role/{site.node_role}", region="")],
            condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
    ]


def _tag(site: Site) -> Permission:
    return Permission(
        sid="TagWhatIsLaunched",
        actions={"ec2:CreateTags": "tags on what is being created, and on nothing else"},
        resources=site.ec2("instance", "volume", "fleet", "launch-template"),
        condition={"StringEquals": {"ec2:CreateAction": ["CreateFleet", "CreateLaunchTemplate", "RunInstances"]}},
    )


def _release(site: Site) -> Permission:
    """Only what carries a run's tag: not the stack's own template."""
    return Permission(
        sid="ReleaseWhatRunsOwn",
        actions={
            "ec2:TerminateInstances": "end a node",
            "ec2:DeleteLaunchTemplate": "remove a run's template once it is over",
            "ec2:DeleteFleets": "`gc --delete`: close a launch request that is still open",
            "ec2:DeleteVolume": "`gc --delete`: remove a volume that outlived its machine",
        },
        resources=site.ec2("instance", "launch-template", "fleet", "volume"),
        condition={
            "StringEquals": {f"aws:ResourceTag/{key}": value for key, value in _ours(site).items()},
            "StringLike": {f"aws:ResourceTag/{tags.RUN}": "*"},
        },
    )


def _rest(site: Site) -> list[Permission]:
    return [
        Permission(
            sid="Images",
            actions={"ssm:GetParameter": "the newest Deep Learning AMI, or the image a spec names by its parameter"},
            resources=[
                site.arn("ssm", "parameter/aws/service/*", account=""),
                site.arn("ssm", f"parameter/{site.stack}/*"),
            ],
        ),
        Permission(
            sid="Notices",
            actions={
                "sqs:ReceiveMessage": "interruption notices, as a second source besides the node itself",
                "sqs:DeleteMessage": "take what was read off the queue",
            },
            resources=[site.arn("sqs", site.queue)],
        ),
    ]


def _ours(site: Site) -> dict[str, str]:
    return {tags.PROJECT: tags.OURS, tags.STACK: site.stack}
