"""Finding what carries our tags in a region, and removing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starling.infra.errors import NotThere
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.resources import Resource, ResourceKind

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

ALIVE = ("pending", "running", "stopping", "stopped")
"""States of an instance that exists: also a stopped one costs, by its volume."""


def find_resources(clients: AwsClients, *, stack: str | None = None) -> list[Resource]:
    """Everything in the clients' region that carries our tags (of one stack) and was made for a run. Raises
    ProviderError. What belongs to a stack itself carries no run's tag and is not found."""
    ours: list[FilterTypeDef] = [{"Name": f"tag:{tags.PROJECT}", "Values": [tags.OURS]}]
    if stack is not None:
        ours.append({"Name": f"tag:{tags.STACK}", "Values": [stack]})
    with clients.named(f"look for resources in {clients.region}"):
        return [
            *_instances(clients, ours),
            *_volumes(clients, ours),
            *(template for template in _templates(clients, ours) if template.run is not None),
            *_fleets(clients, stack),
        ]


def remove_resource(clients: AwsClients, resource: Resource) -> None:
    """Fine if it is gone. For what a store holds, see `S3Store.abort_upload`. Raises ProviderError."""
    ec2 = clients.in_region(resource.region).ec2
    removals: dict[ResourceKind, Callable[[], Any]] = {
        ResourceKind.INSTANCE: lambda: ec2.terminate_instances(InstanceIds=[resource.id]),
        ResourceKind.VOLUME: lambda: ec2.delete_volume(VolumeId=resource.id),
        ResourceKind.LAUNCH_TEMPLATE: lambda: ec2.delete_launch_template(LaunchTemplateId=resource.id),
        ResourceKind.FLEET: lambda: ec2.delete_fleets(FleetIds=[resource.id], TerminateInstances=False),
    }
    try:
        with clients.named(f"remove {resource.kind} {resource.id}"):
            removals[resource.kind]()
    except NotThere:
        return


def _instances(clients: AwsClients, ours: Sequence[FilterTypeDef]) -> Iterator[Resource]:
    alive: FilterTypeDef = {"Name": "instance-state-name", "Values": list(ALIVE)}
    for page in clients.ec2.get_paginator("describe_instances").paginate(Filters=[*ours, alive]):
        for found in (instance for reservation in page["Reservations"] for instance in reservation["Instances"]):
            detail = f"{found['InstanceType']} in {found['Placement']['AvailabilityZone']}, {found['State']['Name']}"
            yield _resource(
                clients, ResourceKind.INSTANCE, found["InstanceId"], found.get("Tags"), found["LaunchTime"], detail
            )


def _volumes(clients: AwsClients, ours: Sequence[FilterTypeDef]) -> Iterator[Resource]:
    free: FilterTypeDef = {"Name": "status", "Values": ["available", "error"]}
    for page in clients.ec2.get_paginator("describe_volumes").paginate(Filters=[*ours, free]):
        for found in page["Volumes"]:
            detail = f"{found['Size']} GiB in {found['AvailabilityZone']}"
            yield _resource(
                clients, ResourceKind.VOLUME, found["VolumeId"], found.get("Tags"), found["CreateTime"], detail
            )


def _templates(clients: AwsClients, ours: Sequence[FilterTypeDef]) -> Iterator[Resource]:
    for page in clients.ec2.get_paginator("describe_launch_templates").paginate(Filters=ours):
        for found in page["LaunchTemplates"]:
            yield _resource(
                clients,
                ResourceKind.LAUNCH_TEMPLATE,
                found["LaunchTemplateId"],
                found.get("Tags"),
                found["CreateTime"],
                found["LaunchTemplateName"],
            )


def _fleets(clients: AwsClients, stack: str | None) -> Iterator[Resource]:
    """Ours are of type instant, which AWS does not list: they buy once and are done. Any other would be a mistake."""
    for page in clients.ec2.get_paginator("describe_fleets").paginate():
        for found in page["Fleets"]:
            marks = tags.as_dict(found.get("Tags"))
            ours = marks.get(tags.PROJECT) == tags.OURS and stack in (None, marks.get(tags.STACK))
            if ours and found.get("Type") != "instant" and found["FleetState"] in ("active", "submitted", "modifying"):
                yield _resource(
                    clients,
                    ResourceKind.FLEET,
                    found["FleetId"],
                    found.get("Tags"),
                    found["CreateTime"],
                    str(found["Type"]),
                )


def _resource(
    clients: AwsClients, kind: ResourceKind, name: str, marks: Any, created_at: datetime, detail: str
) -> Resource:
    given = tags.as_dict(marks)
    return Resource(
        kind=kind,
        id=name,
        region=clients.region,
        store=given.get(tags.STORE) or None,
        run=given.get(tags.RUN) or None,
        node=given.get(tags.NODE) or None,
        created_at=created_at.timestamp(),
        detail=detail,
    )
