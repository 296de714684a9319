"""Permissions, tried with EC2's DryRun: AWS checks the caller and does nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from starling.infra.errors import NotAuthorised, NotThere, ProviderError
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.checkup.finding import Finding, fail, ok, warn
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.images import CPU_IMAGE, find_image
from starling.infra.providers.aws.network import places
from starling.infra.providers.aws.stack import StackOutputs

SMALL_TYPE: Any = "t3.micro"


def check_permissions(clients: AwsClients, stack: StackOutputs, name: str) -> Iterator[Finding]:
    """Each call that buys or looks, as the product makes it. Raises ProviderError if there is no subnet or image."""
    missing = 0
    tried = _tries(clients, stack, name)
    for action, attempt in tried.items():
        try:
            _dry_run(clients, action, attempt)
        except NotAuthorised as error:
            missing += 1
            policy = f"attach the policy {stack.user_policy} to this user or role"
            yield fail(f"permission {action}", "missing", f"{error}; {policy}")
        except ProviderError as error:
            yield warn(f"permission {action}", "cannot be told", str(error))
    if not missing:
        yield ok("permissions", f"{len(tried)} calls tried dry: {', '.join(tried)}")


def _tries(clients: AwsClients, stack: StackOutputs, name: str) -> dict[str, Callable[[], Any]]:
    ec2, run = clients.ec2, f"doctor-{secrets.token_hex(4)}"
    subnet = places(clients, stack.vpc)[0].subnet
    image = find_image(clients, CPU_IMAGE).id
    marks = tags.as_list({tags.PROJECT: tags.OURS, tags.STACK: name, tags.RUN: run})
    template: Any = {"LaunchTemplateId": stack.template_id, "Version": "$Latest"}
    # As a fleet does it: the template's group fits no subnet but those of its own VPC, and there may be no default one.
    network: Any = [{"DeviceIndex": 0, "SubnetId": subnet, "Groups": [stack.security_group]}]
    machines: Any = [{"ResourceType": kind, "Tags": marks} for kind in ("instance", "volume")]
    return {
        "ec2:DescribeInstances": lambda: ec2.describe_instances(DryRun=True),
        "ec2:DescribeSpotPriceHistory": lambda: ec2.describe_spot_price_history(DryRun=True),
        "ec2:DescribeLaunchTemplates": lambda: ec2.describe_launch_templates(DryRun=True),
        "ec2:DescribeVolumes": lambda: ec2.describe_volumes(DryRun=True),
        "ec2:CreateLaunchTemplate": lambda: ec2.create_launch_template(
            DryRun=True,
            LaunchTemplateName=f"starling-{name}-{run}",
            LaunchTemplateData={"ImageId": image},
            TagSpecifications=[{"ResourceType": "launch-template", "Tags": marks}],
        ),
        "ec2:RunInstances": lambda: ec2.run_instances(
            DryRun=True,
            MinCount=1,
            MaxCount=1,
            ImageId=image,
            InstanceType=SMALL_TYPE,
            LaunchTemplate=template,
            NetworkInterfaces=network,
            TagSpecifications=machines,
        ),
        "ec2:CreateFleet": lambda: ec2.create_fleet(
            DryRun=True,
            Type="instant",
            LaunchTemplateConfigs=[
                {
                    "LaunchTemplateSpecification": template,
                    "Overrides": [{"InstanceType": SMALL_TYPE, "SubnetId": subnet, "ImageId": image}],
                }
            ],
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
            TagSpecifications=[
                {"ResourceType": "fleet", "Tags": marks},
                {"ResourceType": "instance", "Tags": marks},
            ],
        ),
    }


def _dry_run(clients: AwsClients, action: str, attempt: Callable[[], Any]) -> None:
    """Raises NotAuthorised naming what is missing, or another ProviderError if that cannot be told."""
    try:
        with clients.named(f"try {action}"):
            attempt()
    except NotThere:
        return  # it got as far as looking for what it names
    except ProviderError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and cause.response["Error"].get("Code") == "DryRunOperation":
            return
        raise
