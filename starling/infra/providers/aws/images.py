"""Which machine image nodes boot from."""

from __future__ import annotations

from dataclasses import dataclass

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.clients import AwsClients

GPU_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
"""Public parameter of the Deep Learning Base AMI: Ubuntu with NVIDIA's driver and Python 3.12.
https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html"""
CPU_IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
"""Public parameter of plain Ubuntu, of which the other one is made.
https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An AMI and its root volume."""

    id: str
    name: str
    """As its owner called it; with AWS's own, what is in it and its date."""
    root_device: str
    size: int
    """GiB that its root volume needs at least."""


def image_setting(given: str | None, gpus: int) -> str:
    """An AMI's id or a parameter's name: the spec's provider.image, or the image that fits the node."""
    return given or (GPU_IMAGE if gpus else CPU_IMAGE)


def find_image(clients: AwsClients, setting: str) -> Image:
    """What the setting stands for today. Raises Misconfigured naming provider.image, and other ProviderErrors."""
    image_id = _from_parameter(clients, setting) if setting.startswith("/") else setting
    with clients.named(f"look at image {image_id}"):
        images = clients.ec2.describe_images(ImageIds=[image_id])["Images"]
    if not images:
        raise Misconfigured(f"there is no image {image_id} in {clients.region}: correct provider.image")
    root = images[0].get("RootDeviceName", "/dev/sda1")
    volumes = {one.get("DeviceName"): one.get("Ebs", {}) for one in images[0].get("BlockDeviceMappings", [])}
    return Image(
        id=image_id,
        name=images[0].get("Name", "unnamed"),
        root_device=root,
        size=volumes.get(root, {}).get("VolumeSize", 0),
    )


def _from_parameter(clients: AwsClients, name: str) -> str:
    with clients.named(f"find the image in parameter {name}"):
        value = clients.ssm.get_parameter(Name=name)["Parameter"].get("Value", "")
    if not value.startswith("ami-"):
        raise Misconfigured(f"parameter {name} in {clients.region} holds no image id: correct provider.image")
    return value
