"""`starling aws setup`: what it would change, and doing so. The stack is the only state there is."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError

from starling.infra.errors import Misconfigured, ProviderError
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.naming import Site
from starling.infra.providers.aws.network import find_vpc, places, wants_public_addresses
from starling.infra.providers.aws.stack import describe_stack, outputs_of
from starling.infra.providers.aws.stack_progress import follow
from starling.infra.providers.aws.template import template

SPOT_SERVICE = "spot.amazonaws.com"
SPOT_ROLE = "AWSServiceRoleForEC2Spot"
_EMPTY = ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "DELETE_COMPLETE")
"""A stack that holds nothing: never made, or its making was taken back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that a set-up creates, changes, removes, or takes over as it finds it."""

    what: Literal["create", "change", "remove", "adopt"]
    kind: str
    """As CloudFormation calls it: AWS::S3::Bucket."""
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupPlan:
    """What `starling aws setup` will do."""

    site: Site
    vpc: str
    template: dict[str, Any]
    changes: tuple[Change, ...]
    status: str | None
    """Of the stack as it is; None: there is none."""
    makes_spot_role: bool

    @property
    def adopts_bucket(self) -> bool:
        return any(change.what == "adopt" for change in self.changes)

    @property
    def nothing_to_do(self) -> bool:
        return not self.changes


def plan_setup(clients: AwsClients, stack: str, vpc: str | None) -> SetupPlan:
    """Look, change nothing. Raises ProviderError."""
    site = site_of(clients, stack)
    found = describe_stack(clients, stack)
    status = found["StackStatus"] if found else None
    vpc = find_vpc(clients, vpc or (outputs_of(found).get("Vpc") if found else None))
    wanted = template(site, vpc=vpc, public_addresses=wants_public_addresses(places(clients, vpc)))
    current = None if status is None or status in _EMPTY else _template_of(clients, stack)
    changes = differences(current, wanted)
    if "Bucket" not in (current or {}).get("Resources", {}) and _bucket_is_ours(clients, site):
        changes = [_adopted(change) for change in changes]
    role = _spot_role_is_missing(clients)
    if role:
        changes.append(Change(what="create", kind="AWS::IAM::ServiceLinkedRole", name=SPOT_ROLE))
    return SetupPlan(site=site, vpc=vpc, template=wanted, changes=tuple(changes), status=status, makes_spot_role=role)


def carry_out(clients: AwsClients, plan: SetupPlan, say: Callable[[str], None]) -> None:
    """Until CloudFormation is done. Safe to repeat after any failure.

    Raises ProviderError; if the stack fails, with its first failing event.
    """
    if plan.makes_spot_role:
        _make_spot_role(clients)
    if all(change.kind == "AWS::IAM::ServiceLinkedRole" for change in plan.changes):
        return
    name = plan.site.stack
    status = _settled(clients, name, plan.status, say)
    if status == "ROLLBACK_COMPLETE":
        with clients.named(f"remove what is left of stack {name}"):
            clients.cloudformation.delete_stack(StackName=name)
        follow(clients, name, say)
        status = None
    _deploy(clients, plan, "CREATE" if status is None or status in _EMPTY else "UPDATE", say)


def site_of(clients: AwsClients, stack: str) -> Site:
    """Whose account this is. Raises ProviderError."""
    caller = clients.caller()
    return Site(account=caller.account, region=clients.region, stack=stack, partition=caller.arn.split(":", 2)[1])


def differences(current: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[Change]:
    """Resource by resource, in the template's order; what goes comes last. Outputs alone count too."""
    old, new = (current or {}).get("Resources", {}), wanted["Resources"]
    changes = [
        Change(what="change" if key in old else "create", kind=body["Type"], name=_name(key, body))
        for key, body in new.items()
        if old.get(key) != body
    ]
    changes += [
        Change(what="remove", kind=body["Type"], name=_name(key, body)) for key, body in old.items() if key not in new
    ]
    if current is not None and not changes and current.get("Outputs") != wanted["Outputs"]:
        changes.append(Change(what="change", kind="AWS::CloudFormation::Stack", name="outputs"))
    return changes


def _name(key: str, body: Mapping[str, Any]) -> str:
    properties = body.get("Properties", {})
    names = (value for name, value in properties.items() if name.endswith("Name") and isinstance(value, str))
    return next(names, key)


def _adopted(change: Change) -> Change:
    if change.kind != "AWS::S3::Bucket":
        return change
    return Change(what="adopt", kind=change.kind, name=change.name)


def _template_of(clients: AwsClients, stack: str) -> dict[str, Any]:
    with clients.named(f"read the template of stack {stack}"):
        body: Any = clients.cloudformation.get_template(StackName=stack)["TemplateBody"]
    return dict(json.loads(body) if isinstance(body, str) else body)


def _bucket_is_ours(clients: AwsClients, site: Site) -> bool:
    """Whether an earlier set-up left it. Raises Misconfigured if somebody else has a bucket of that name."""
    with clients.named(f"look for the bucket {site.bucket}"):
        try:
            clients.s3.head_bucket(Bucket=site.bucket, ExpectedBucketOwner=site.account)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
                raise Misconfigured(
                    f"the bucket {site.bucket} belongs to another account, or these credentials may not see it: choose "
                    "another --stack, whose bucket has another name"
                ) from error
            raise
    return True


def _spot_role_is_missing(clients: AwsClients) -> bool:
    with clients.named(f"look for the role {SPOT_ROLE}"):
        try:
            clients.iam.get_role(RoleName=SPOT_ROLE)
        except clients.iam.exceptions.NoSuchEntityException:
            return True
    return False


def _make_spot_role(clients: AwsClients) -> None:
    """Fine if somebody else did so since we looked."""
    with clients.named("make the role by which EC2 asks for spot capacity"):
        try:
            clients.iam.create_service_linked_role(AWSServiceName=SPOT_SERVICE)
        except ClientError as error:
            said = error.response["Error"]
            # IAM itself says InvalidInput, "Service role name ... has been taken in this account".
            taken = said["Code"] == "InvalidInput" and "has been taken" in said["Message"]
            if not taken and said["Code"] not in ("EntityAlreadyExists", "EntityAlreadyExistsException"):
                raise


def _settled(clients: AwsClients, name: str, status: str | None, say: Callable[[str], None]) -> str | None:
    """Wait for what somebody else is doing to the stack, or was when we were interrupted."""
    if status is None or not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
        return status
    say(f"stack {name} is {status}: waiting for that first")
    return follow(clients, name, say)


def _deploy(
    clients: AwsClients, plan: SetupPlan, kind: Literal["CREATE", "UPDATE"], say: Callable[[str], None]
) -> None:
    name = plan.site.stack
    if plan.adopts_bucket:
        _start_by_change_set(clients, plan, kind)
    else:
        deploy = clients.cloudformation.create_stack if kind == "CREATE" else clients.cloudformation.update_stack
        with clients.named(f"{kind.lower()} stack {name}"):
            deploy(**_described(plan))
    status = follow(clients, name, say)
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise Misconfigured(f"stack {name} ended as {status}; set it right and run `starling aws setup` again")


def _described(plan: SetupPlan) -> dict[str, Any]:
    return {
        "StackName": plan.site.stack,
        "TemplateBody": json.dumps(plan.template, indent=1),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": tags.as_list({tags.PROJECT: tags.OURS, tags.STACK: plan.site.stack}),
    }


def _start_by_change_set(clients: AwsClients, plan: SetupPlan, kind: Literal["CREATE", "UPDATE"]) -> None:
    """Nothing else can take over a bucket that an earlier set-up left."""
    name, change_set = plan.site.stack, f"starling-{secrets.token_hex(6)}"
    with clients.named(f"prepare stack {name}"):
        clients.cloudformation.create_change_set(
            **_described(plan), ChangeSetName=change_set, ChangeSetType=kind, ImportExistingResources=True
        )
    _await_change_set(clients, name, change_set)
    with clients.named(f"{kind.lower()} stack {name}"):
        clients.cloudformation.execute_change_set(StackName=name, ChangeSetName=change_set)


def _await_change_set(clients: AwsClients, stack: str, name: str) -> None:
    while True:
        with clients.named(f"prepare stack {stack}"):
            found = clients.cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
        if found["Status"] == "CREATE_COMPLETE":
            return
        if found["Status"] == "FAILED":
            raise ProviderError(f"CloudFormation refuses the template of {stack}: {found.get('StatusReason')}")
        clients.clock.sleep(2)
