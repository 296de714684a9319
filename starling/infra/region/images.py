"""Machine images that AWS publishes as SSM parameters and moto has not got."""

from __future__ import annotations

from datetime import UTC, datetime

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ssm.models import Parameter, ssm_backends

_DEEP_LEARNING = "/aws/service/deeplearning/ami/x86_64"
PARAMETERS = (
    f"{_DEEP_LEARNING}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
    f"{_DEEP_LEARNING}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
    f"{_DEEP_LEARNING}/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id",
    f"{_DEEP_LEARNING}/base-with-single-cuda-ubuntu-24.04/latest/ami-id",
    f"{_DEEP_LEARNING}/oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04/latest/ami-id",
    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
)
# https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
ROOT_DEVICE = "/dev/sda1"


def publish_images(region: str) -> None:
    """Make an image for each parameter in a region, once."""
    parameters = ssm_backends[DEFAULT_ACCOUNT_ID][region]._parameters
    for name in PARAMETERS:
        if parameters.get(name):
            continue
        image = ec2_backends[DEFAULT_ACCOUNT_ID][region].register_image(name=name.split("/")[-3], description=name)
        image.root_device_name = ROOT_DEVICE
        image.root_device_type = "ebs"
        image.architecture = "x86_64"
        image.virtualization_type = "hvm"
        parameters[name].append(
            Parameter(  # type: ignore[abstract]  # moto makes it as it is
                account_id=DEFAULT_ACCOUNT_ID,
                name=name,
                value=image.id,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=datetime.now(UTC),
                version=1,
                data_type="aws:ec2:image",
            )
        )
