"""The launch template of a run: the set-up's base template, plus image, disk, user data and tags."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starling.infra.errors import Misconfigured, NotThere
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.images import Image, find_image
from starling.infra.providers.aws.tags import RUN, STORE, as_dict, as_list

if TYPE_CHECKING:
    from botocore.model import Shape
    from mypy_boto3_ec2.type_defs import RequestLaunchTemplateDataTypeDef

LONGEST_NAME = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplatePlan:
    """What a run's template is made from. Equal plans have equal names, whatever the newest image is."""

    stack: str
    run: str
    base_id: str
    """The set-up's template ..."""
    base_revision: str
    """... and what tells a newer set-up from an older one."""
    image: str
    """An AMI's id or a parameter's name."""
    disk: int
    """GiB."""
    user_data: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        store = self.tags.get(STORE, "")  # not all tags: another owner must find the same template
        parts = (self.base_id, self.base_revision, self.image, str(self.disk), self.user_data, store)
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        return f"{f'starling-{self.stack}-{self.run}'[: LONGEST_NAME - len(digest) - 1]}-{digest}"


class RunTemplates:
    """Makes each template once in a process, also if several threads want it at once."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._there: set[str] = set()

    def ensure(self, plan: TemplatePlan) -> str:
        """The template's name, once it exists. Raises ProviderError."""
        name = plan.name
        with self._lock:
            if name not in self._there:
                if not self._exists(name):
                    self._make(plan, name)
                self._there.add(name)
        return name

    def missed(self, name: str) -> None:
        """AWS says that it is not there (any more): look again next time."""
        with self._lock:
            self._there.discard(name)

    def remove(self, run: str, store_uri: str) -> None:
        """Delete all templates of a run. Raises ProviderError."""
        filters = [{"Name": f"tag:{RUN}", "Values": [run]}]
        with self._clients.named(f"list the launch templates of run {run}"):
            pages = self._clients.ec2.get_paginator("describe_launch_templates").paginate(Filters=cast("Any", filters))
            found = [template for page in pages for template in page["LaunchTemplates"]]
        for template in found:
            if as_dict(template.get("Tags")).get(STORE) == store_uri:
                self._delete(template["LaunchTemplateId"], run)
        with self._lock:
            self._there.clear()

    def _exists(self, name: str) -> bool:
        try:
            with self._clients.named(f"look for launch template {name}"):
                return bool(self._clients.ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"])
        except NotThere:
            return False

    def _make(self, plan: TemplatePlan, name: str) -> None:
        data = template_data(self._base(plan.base_id), find_image(self._clients, plan.image), plan)
        with self._clients.named(f"make launch template {name}"):
            try:
                self._clients.ec2.create_launch_template(
                    LaunchTemplateName=name,
                    LaunchTemplateData=data,
                    TagSpecifications=[{"ResourceType": "launch-template", "Tags": as_list(plan.tags)}],
                )
            except self._clients.ec2.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "InvalidLaunchTemplateName.AlreadyExistsException":
                    raise  # another controller was quicker: equal names mean equal templates

    def _base(self, template_id: str) -> RequestLaunchTemplateDataTypeDef:
        ec2 = self._clients.ec2
        with self._clients.named(f"read the set-up's launch template {template_id}"):
            answer = ec2.describe_launch_template_versions(LaunchTemplateId=template_id, Versions=["$Latest"])
        data = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        shape = ec2.meta.service_model.shape_for("RequestLaunchTemplateData")
        return cast("RequestLaunchTemplateDataTypeDef", only_known(data, shape))

    def _delete(self, template_id: str, run: str) -> None:
        try:
            with self._clients.named(f"delete launch template {template_id} of run {run}"):
                self._clients.ec2.delete_launch_template(LaunchTemplateId=template_id)
        except NotThere:
            pass  # somebody else was quicker


def template_data(
    base: RequestLaunchTemplateDataTypeDef, image: Image, plan: TemplatePlan
) -> RequestLaunchTemplateDataTypeDef:
    """The base template's data with the run's own. Raises Misconfigured if the disk cannot hold the image."""
    if plan.disk < image.size:
        raise Misconfigured(f"provider.disk: {plan.disk} GiB cannot hold image {image.id}; it needs {image.size} GiB")
    root = {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True, "VolumeSize": plan.disk}
    tags = as_list(plan.tags)
    data = {
        **base,
        "ImageId": image.id,
        # Only the root volume: the base's mapping may be for another image's device.
        "BlockDeviceMappings": [{"DeviceName": image.root_device, "Ebs": root}],
        "UserData": base64.b64encode(plan.user_data.encode()).decode(),
        "TagSpecifications": [{"ResourceType": "volume", "Tags": tags}],
    }
    return cast("RequestLaunchTemplateDataTypeDef", data)


def only_known(value: Any, shape: Shape) -> Any:
    """`value` without the members that `shape` has not: EC2 shows a template with more than it takes for one."""
    if shape.type_name == "structure":
        members: Mapping[str, Shape] = shape.members  # type: ignore[attr-defined]
        return {key: only_known(part, members[key]) for key, part in value.items() if key in members}
    if shape.type_name == "list":
        return [only_known(part, shape.member) for part in value]  # type: ignore[attr-defined]
    return value
