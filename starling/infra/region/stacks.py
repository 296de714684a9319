"""What moto's CloudFormation lacks for a set-up: resources it does not know, settings of a bucket that it drops, a
retained bucket that is taken over, outputs of what a change set made, and the end of a managed policy."""

from __future__ import annotations

import json
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet
from moto.core.common_models import CloudFormationModel
from moto.iam import models as iam
from moto.s3.models import FakeBucket, s3_backends
from moto.utilities.utils import get_partition

_plain_bucket = FakeBucket.create_from_cloudformation_json
_plain_apply = ChangeSet.apply
_plain_put_policy = iam.Role.put_policy


class _Unheeded:
    """A policy that is taken down and not enforced: it asks for TLS, and the emulated cloud has none."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def create_from_cloudformation_json(cls, resource_name: str, *_: Any, **__: Any) -> _Unheeded:
        return cls(resource_name)

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: Any, *_: Any, **__: Any) -> Any:
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(cls, *_: Any, **__: Any) -> None:
        """Nothing is left of it."""

    def delete(self, *_: Any) -> None:
        """Nothing is left of it."""


class _BucketPolicy(_Unheeded, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"


class _QueuePolicy(_Unheeded, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"


def teach_cloudformation() -> None:
    """Once in a process, or again: the same."""
    for model in (_BucketPolicy, _QueuePolicy):
        parsing.get_model_map()[model.cloudformation_type()] = model
        parsing.get_name_type_map()[model.cloudformation_type()] = ""
    iam.SERVICE_NAME_CONVERSION["spot"] = "EC2Spot"
    FakeBucket.create_from_cloudformation_json = classmethod(_bucket)  # type: ignore[assignment,method-assign]
    ChangeSet.apply = _apply  # type: ignore[method-assign]
    iam.ManagedPolicy.delete = _delete_policy  # type: ignore[attr-defined]
    iam.Role.put_policy = _put_policy  # type: ignore[method-assign]


def _bucket(
    _: Any, /, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **more: Any
) -> FakeBucket:
    """Also of a name that the account has already, as a change set that imports does; with its public access block."""
    backend = s3_backends[account_id][get_partition(region_name)]
    found = backend.buckets.get(resource_name)
    bucket = found or _plain_bucket(resource_name, cloudformation_json, account_id, region_name, **more)
    if blocked := cloudformation_json.get("Properties", {}).get("PublicAccessBlockConfiguration"):
        backend.put_public_access_block(resource_name, blocked)
    return bucket


def _apply(self: ChangeSet) -> None:
    _plain_apply(self)
    self.stack.template = self.template
    self.stack._parse_template()
    self.stack.output_map = self.stack._create_output_map()


def _delete_policy(self: iam.ManagedPolicy, *_: str) -> None:
    """Refused while a user or role has it, as IAM does."""
    self.backend.delete_policy(self.arn)


def _put_policy(self: iam.Role, policy_name: str, policy_json: Any) -> None:
    """As JSON also if it comes out of a template, where it is none."""
    _plain_put_policy(self, policy_name, policy_json if isinstance(policy_json, str) else json.dumps(policy_json))
