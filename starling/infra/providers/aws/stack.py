"""What `starling aws setup` made in an account, as its CloudFormation stack tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starling.infra.errors import Misconfigured, NotThere
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.naming import STORE_PREFIX

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef


@dataclass(frozen=True, kw_only=True, slots=True)
class StackOutputs:
    """Names of what the stack made."""

    bucket: str
    template_id: str
    """Base launch template; each run has one of its own, made from it."""
    template_name: str
    queue_url: str | None
    """Where EC2's events arrive, if the stack has such a queue."""
    security_group: str
    node_role: str
    """Name of the role that nodes have."""
    instance_profile: str
    vpc: str
    user_policy: str
    """ARN of the managed policy that a user of Starling needs."""
    revision: str
    """Hash of the template that it was made from."""


def read_stack(clients: AwsClients, name: str) -> StackOutputs:
    """One call. Raises Misconfigured with the command to run if there is no such stack, or it is not finished."""
    found = describe_stack(clients, name)
    command = f"`starling aws setup --region {clients.region}{'' if name == 'starling' else f' --stack {name}'}`"
    if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
        raise Misconfigured(f"there is no stack {name} in {clients.region}: run {command} first")
    try:
        return _outputs(outputs_of(found))
    except KeyError as missing:
        raise Misconfigured(
            f"stack {name} in {clients.region} is {found['StackStatus']} and has no output {missing}: run {command}"
        ) from missing


def default_store_uri(section: dict[str, Any]) -> str:
    """The store of a spec's provider section that names none: in its stack's bucket. Raises ProviderError."""
    clients = AwsClients(section["region"])
    return store_uri(read_stack(clients, section["stack"]).bucket, clients.region)


def store_uri(bucket: str, region: str) -> str:
    """With the region, so that a node, a laptop and another region all find the bucket without being told."""
    return f"s3://{bucket}/{STORE_PREFIX}?region={region}"


def describe_stack(clients: AwsClients, name: str) -> StackTypeDef | None:
    """As CloudFormation shows it; None if there is none. Raises ProviderError."""
    try:
        with clients.named(f"read stack {name}"):
            return clients.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except NotThere:
        return None


def outputs_of(found: StackTypeDef) -> dict[str, str]:
    """Name -> value."""
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def _outputs(given: dict[str, str]) -> StackOutputs:
    return StackOutputs(
        bucket=given["Bucket"],
        template_id=given["LaunchTemplateId"],
        template_name=given["LaunchTemplateName"],
        queue_url=given.get("QueueUrl"),
        security_group=given["SecurityGroup"],
        node_role=given["NodeRole"],
        instance_profile=given["InstanceProfile"],
        vpc=given["Vpc"],
        user_policy=given["UserPolicy"],
        revision=given["Revision"],
    )
