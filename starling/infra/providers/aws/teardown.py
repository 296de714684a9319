"""`starling aws teardown`: removes what a set-up made, and only then, if told so, the bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from starling.infra.errors import Misconfigured, NotThere
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.inventory import find_resources, remove_resource
from starling.infra.providers.aws.setup import site_of
from starling.infra.providers.aws.stack_progress import follow
from starling.infra.providers.resources import Resource, ResourceKind

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

RESERVED_ROLE = "AWSReservedSSO_"
"""How the names of roles begin that IAM Identity Center makes: AWSReservedSSO_<permission set>_<16 digits>."""


def living_machines(clients: AwsClients, stack: str) -> list[Resource]:
    """Instances that carry the stack's tags and exist. Raises ProviderError."""
    return [found for found in find_resources(clients, stack=stack) if found.kind is ResourceKind.INSTANCE]


def remove_leftovers(clients: AwsClients, stack: str, say: Callable[[str], None]) -> None:
    """What ended runs of this stack left. Only once no machine and no run lives. Raises ProviderError."""
    for resource in find_resources(clients, stack=stack):
        if resource.kind is ResourceKind.INSTANCE:
            raise Misconfigured(f"instance {resource.id} was started meanwhile: end its run first")
        say(f"removing {resource.kind} {resource.id} ({resource.detail})")
        remove_resource(clients, resource)


def delete_stack(clients: AwsClients, stack: str, say: Callable[[str], None]) -> None:
    """Until it is gone; fine if there is none. The bucket stays. Raises ProviderError with the first failing event."""
    _detach_policy(clients, stack, say)
    with clients.named(f"delete stack {stack}"):
        clients.cloudformation.delete_stack(StackName=stack)
    follow(clients, stack, say)


def delete_bucket(clients: AwsClients, bucket: str, say: Callable[[str], None]) -> None:
    """With everything in it: objects, old versions, unfinished uploads. Fine if there is none. Raises ProviderError."""
    if not bucket_exists(clients, bucket):
        return
    with clients.named(f"delete the bucket {bucket}"):
        say(f"emptying the bucket {bucket}")
        _abort_uploads(clients, bucket)
        _delete_versions(clients, bucket)
        clients.s3.delete_bucket(Bucket=bucket)


def bucket_exists(clients: AwsClients, bucket: str) -> bool:
    """Raises ProviderError if that cannot be seen."""
    with clients.named(f"look for the bucket {bucket}"):
        try:
            clients.s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
    return True


def _detach_policy(clients: AwsClients, stack: str, say: Callable[[str], None]) -> None:
    """From everybody who was given it: IAM deletes no policy that somebody has. Raises Misconfigured, before it takes
    it from anybody, if somebody has it through IAM Identity Center."""
    site, iam = site_of(clients, stack), clients.iam
    name, arn = site.user_policy, f"arn:{site.partition}:iam::{site.account}:policy/{site.user_policy}"
    try:
        with clients.named(f"see who has the policy {name}"):
            pages = list(iam.get_paginator("list_entities_for_policy").paginate(PolicyArn=arn))
    except NotThere:
        return
    users = [user["UserName"] for page in pages for user in page["PolicyUsers"]]
    groups = [group["GroupName"] for page in pages for group in page["PolicyGroups"]]
    roles = [role["RoleName"] for page in pages for role in page["PolicyRoles"]]
    _refuse_reserved(roles, name)
    with clients.named(f"take the policy {name} from those who have it"):
        for user in users:
            say(f"taking {name} from user {user}")
            iam.detach_user_policy(UserName=user, PolicyArn=arn)
        for group in groups:
            say(f"taking {name} from group {group}")
            iam.detach_group_policy(GroupName=group, PolicyArn=arn)
        for role in roles:
            say(f"taking {name} from role {role}")
            iam.detach_role_policy(RoleName=role, PolicyArn=arn)


def _refuse_reserved(roles: Sequence[str], policy: str) -> None:
    """Roles that IAM Identity Center makes from permission sets: only it can change them, or they come back so."""
    if reserved := [role for role in roles if role.startswith(RESERVED_ROLE)]:
        sets = ", ".join(role.removeprefix(RESERVED_ROLE).rpartition("_")[0] or role for role in reserved)
        raise Misconfigured(
            f"remove the policy {policy} from the permission set {sets} in IAM Identity Center first, and let it "
            f"update this account: AWS made {', '.join(reserved)} from it. Nothing was removed"
        )


def _abort_uploads(clients: AwsClients, bucket: str) -> None:
    for page in clients.s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            clients.s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _delete_versions(clients: AwsClients, bucket: str) -> None:
    """A bucket without versioning lists each object as its one version."""
    for page in clients.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        entries: list[ObjectIdentifierTypeDef] = [
            {"Key": found["Key"], "VersionId": found["VersionId"]}
            for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]
        if not entries:
            continue
        answer = clients.s3.delete_objects(Bucket=bucket, Delete={"Objects": entries, "Quiet": True})
        if refused := answer.get("Errors"):
            raise Misconfigured(
                f"{refused[0].get('Key')} in the bucket {bucket} cannot be deleted: {refused[0].get('Code')}, "
                f"{refused[0].get('Message')}"
            )
