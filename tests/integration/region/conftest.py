"""An emulated cloud or region for one test, and a client that talks to it."""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.loaders import create_loader

from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.region import EmulatedRegion

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

Aws = Callable[[str], Any]
PATIENCE = 60.0
_LOADER = create_loader()
"""Descriptions of the services are parsed once, not for every client."""


@pytest.fixture
def cloud() -> Iterator[EmulatedCloud]:
    with EmulatedCloud() as cloud:
        yield cloud


@pytest.fixture
def aws(cloud: EmulatedCloud) -> Aws:
    """Clients of the cloud by service; they do not try again."""
    return clients_of(cloud.environment)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path: sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="rg-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def region(short_folder: Path) -> Iterator[EmulatedRegion]:
    with EmulatedRegion(short_folder) as region:
        yield region


def clients_of(environment: dict[str, str]) -> Aws:
    session = botocore.session.Session()
    session.register_component("data_loader", _LOADER)

    def client(service: str) -> Any:
        return session.create_client(
            service,
            "us-east-1",
            endpoint_url=environment["AWS_ENDPOINT_URL_S3" if service == "s3" else "AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    return client


class Shop:
    """Buys instances with fleets of one template."""

    def __init__(self, ec2: EC2Client, user_data: str = "#!/bin/sh\n", **data: Any) -> None:
        self.ec2 = ec2
        found = ec2.describe_subnets()["Subnets"]
        self.subnets = {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in found}
        template: dict[str, Any] = {
            "ImageId": "ami-12345678",
            "UserData": base64.b64encode(user_data.encode()).decode(),
            "InstanceInitiatedShutdownBehavior": "terminate",
            **data,
        }
        ec2.create_launch_template(LaunchTemplateName="shop", LaunchTemplateData=template)  # type: ignore[arg-type]

    def ask(
        self,
        *types: str,
        zones: tuple[str, ...] = ("a", "b"),
        market: str = "spot",
        count: int = 1,
        strategy: str | None = None,
        tags: dict[str, str] | None = None,
        override: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """What CreateFleet answers."""
        strategy = strategy or ("price-capacity-optimized" if market == "spot" else "lowest-price")
        overrides = [
            {"InstanceType": name, "SubnetId": self.subnets[f"us-east-1{zone}"], **(override or {})}
            for name in types or ("g5.xlarge",)
            for zone in zones
        ]
        options = "SpotOptions" if market == "spot" else "OnDemandOptions"
        request: dict[str, Any] = {
            "Type": "instant",
            "TargetCapacitySpecification": {"TotalTargetCapacity": count, "DefaultTargetCapacityType": market},
            options: {"AllocationStrategy": strategy},
            "LaunchTemplateConfigs": [
                {
                    "LaunchTemplateSpecification": {"LaunchTemplateName": "shop", "Version": "$Latest"},
                    "Overrides": overrides,
                }
            ],
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in (tags or {"a": "b"}).items()]}
            ],
        }
        answer: dict[str, Any] = dict(self.ec2.create_fleet(**{**request, **more}))
        del answer["ResponseMetadata"]
        return answer

    def buy(self, *types: str, **wish: Any) -> list[str]:
        """The ids of what was bought."""
        return [name for group in self.ask(*types, **wish)["Instances"] for name in group["InstanceIds"]]

    def look(self, instance_id: str) -> dict[str, Any]:
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return dict(reservation["Instances"][0])


def wait_for(what: str, condition: Callable[[], Any], *, patience: float = PATIENCE) -> Any:
    """Look again until it is true; what it says then."""
    give_up_at = time.monotonic() + patience
    while time.monotonic() < give_up_at:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")
