"""An AWS account in the emulated cloud, set up or not, and users in it whose permissions are enforced.

moto checks the action of every call, and of S3 the resource. It knows no conditions (a statement with one is taken
for a refusal) and sees every resource but S3's as `*`: policies are handed to it without what it cannot judge. What
it leaves out is judged by `tests/support/policy_rules.py`.
"""

from __future__ import annotations

import copy
import functools
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
import pytest
from botocore.loaders import Loader, create_loader
from moto.core.authorization import enable_iam_authentication

from starling.infra.clock import FakeClock
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.setup import carry_out, plan_setup
from starling.infra.region.cloud import EmulatedCloud

REGION = "us-east-1"
ACCOUNT = "123456789012"


def client(service: str, region: str = REGION) -> Any:
    """Of whoever the environment's credentials are."""
    session = botocore.session.Session()
    session.register_component("data_loader", _service_descriptions())
    return session.create_client(service, region)


def lead_to(cloud: EmulatedCloud, patch: pytest.MonkeyPatch) -> None:
    """AWS clients of this process talk to it from now on."""
    patch.delenv("AWS_PROFILE", raising=False)
    for name, value in cloud.environment.items():
        patch.setenv(name, value)


def set_up(clients: AwsClients | None = None, stack: str = "starling") -> list[str]:
    """As `starling aws setup` does; returns what it said."""
    clients = clients or AwsClients(REGION, clock=FakeClock())
    said: list[str] = []
    carry_out(clients, plan_setup(clients, stack, None), said.append)
    return said


def what_moto_can_judge(policy: dict[str, Any]) -> dict[str, Any]:
    """See above."""
    plain = copy.deepcopy(policy)
    for statement in plain["Statement"]:
        statement.pop("Condition", None)
        if any(not resource.startswith("arn:aws:s3:::") for resource in statement["Resource"]):
            statement["Resource"] = ["*"]
    return plain


def policy_of(arn: str) -> dict[str, Any]:
    """The document of a managed policy, as it stands in the account."""
    iam = client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return dict(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])


@contextmanager
def as_user_with(policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything inside is done by a user who has this policy and no other. Made anew, as the account's owner."""
    iam = client("iam")
    name = f"researcher-{secrets.token_hex(4)}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(what_moto_can_judge(policy)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    with monkeypatch.context() as patch, enable_iam_authentication():
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield


@contextmanager
def as_node(role: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything inside is done with the credentials that IMDS gives to a node."""
    iam = client("iam")
    sts = client("sts")
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        judged = json.dumps(what_moto_can_judge(document))
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=judged)
    arn = iam.get_role(RoleName=role)["Role"]["Arn"]
    key = sts.assume_role(RoleArn=arn, RoleSessionName="i-0123456789abcdef0")["Credentials"]
    with monkeypatch.context() as patch, enable_iam_authentication():
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.setenv("AWS_SESSION_TOKEN", key["SessionToken"])
        yield


@contextmanager
def fresh_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedCloud]:
    """With S3 in moto too, so that its permissions are checked as well."""
    with EmulatedCloud() as cloud, monkeypatch.context() as patch:
        lead_to(cloud, patch)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        yield cloud


@functools.cache
def _service_descriptions() -> Loader:
    """Parsed once: it is what takes the time when a client is made."""
    return create_loader()
