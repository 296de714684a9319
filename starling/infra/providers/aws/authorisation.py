"""What AWS says when a permission is missing, turned into who lacks which action on what."""

from __future__ import annotations

import re

_SERVICES = {
    "cloudformation": "CreateStack UpdateStack DeleteStack DescribeStacks DescribeStackEvents DescribeStackResources"
    " ListStackResources GetTemplate ValidateTemplate CreateChangeSet DescribeChangeSet ExecuteChangeSet"
    " DeleteChangeSet",
    "fis": "CreateExperimentTemplate StartExperiment DeleteExperimentTemplate GetExperiment",
    "iam": "CreateServiceLinkedRole GetRole GetInstanceProfile SimulatePrincipalPolicy ListEntitiesForPolicy"
    " DetachUserPolicy DetachGroupPolicy DetachRolePolicy",
    "pricing": "GetProducts",
    "servicequotas": "GetServiceQuota ListServiceQuotas GetAWSDefaultServiceQuota",
    "sqs": "ReceiveMessage DeleteMessage GetQueueAttributes GetQueueUrl",
    "ssm": "GetParameter GetParameters",
    "sts": "GetCallerIdentity",
}
_ACTIONS = {
    operation: f"{service}:{operation}" for service, all_ in _SERVICES.items() for operation in all_.split()
} | {
    "DeleteMessageBatch": "sqs:DeleteMessage",
    "HeadBucket": "s3:ListBucket",
    "DeleteBucket": "s3:DeleteBucket",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}

_ACTION = re.compile(r"not authorized to perform:? (?P<action>[\w-]+:\w+)")
_RESOURCE = re.compile(r"on resource:? (?P<resource>\S+)")
_WHO = re.compile(r"User: (?P<who>arn:\S+)")
_BECAUSE = re.compile(r"because (?P<why>.+?)(?:\.? Encoded authorization|\.?$)", re.DOTALL)
_EXPLICIT = re.compile(r"explicit deny in an? (?P<where>[\w -]+)")
_ENCODED = re.compile(r"Encoded authorization failure message: (?P<encoded>\S+)")


def action_of(operation: str) -> str:
    """The IAM action that an API call needs in any case; it may need others besides."""
    return _ACTIONS.get(operation, f"ec2:{operation}")


def denial(message: str, action: str) -> str:
    """What is missing, for the user. `action` is named if the message names none."""
    named = _ACTION.search(message)
    resource = _RESOURCE.search(message)
    who = _WHO.search(message)
    subject = who["who"] if who else "these credentials"
    on = f" on {resource['resource'].rstrip('.')}" if resource else ""
    missing = named["action"] if named else action
    return f"{subject} may not do {missing}{on}; {_remedy(message, missing, certain=named is not None)}"


def _remedy(message: str, action: str, *, certain: bool) -> str:
    if explicit := _EXPLICIT.search(message):
        return (
            f"a {explicit['where'].strip()} denies it explicitly, so that no other policy can allow it: change that one"
        )
    because = _BECAUSE.search(message)
    reason = f"{because['why'].strip()}: " if because else ""
    remedy = f"{reason}allow {action} (docs/aws.md lists all that Starling needs)"
    encoded = _ENCODED.search(message)
    if certain or not encoded:
        return remedy if certain or not message else f"AWS says: {message.strip()}; {remedy}"
    return (
        f"{remedy}, or what AWS's encoded message names instead:"
        f" aws sts decode-authorization-message --encoded-message {encoded['encoded']}"
    )
