"""What is missing when AWS says no."""

from __future__ import annotations

import pytest

from starling.infra.providers.aws.authorisation import action_of, denial

WHO = "arn:aws:iam::123456789012:user/ada"


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("CreateFleet", "ec2:CreateFleet"),
        ("GetParameter", "ssm:GetParameter"),
        ("DeleteMessageBatch", "sqs:DeleteMessage"),
        ("GetServiceQuota", "servicequotas:GetServiceQuota"),
        ("CreateStack", "cloudformation:CreateStack"),
    ],
)
def test_an_operation_s_action(operation: str, action: str) -> None:
    assert action_of(operation) == action


def test_the_action_the_resource_and_the_reason_are_named() -> None:
    said = denial(
        f"You are not authorized to perform this operation. User: {WHO} is not authorized to perform: ec2:RunInstances "
        "on resource: arn:aws:ec2:us-east-1:123456789012:instance/* because no identity-based policy allows the "
        "ec2:RunInstances action. Encoded authorization failure message: AbC-123",
        "ec2:CreateFleet",
    )
    assert said.startswith(f"{WHO} may not do ec2:RunInstances on arn:aws:ec2:us-east-1:123456789012:instance/*; ")
    assert "no identity-based policy allows the ec2:RunInstances action: allow ec2:RunInstances" in said
    assert "AbC-123" not in said


def test_the_role_that_may_not_be_passed_is_named() -> None:
    said = denial(
        f"User: {WHO} is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/node "
        "because no identity-based policy allows the iam:PassRole action",
        "ec2:CreateFleet",
    )
    assert "may not do iam:PassRole on arn:aws:iam::123456789012:role/node" in said


def test_an_explicit_deny_is_told_apart_because_allowing_does_not_help() -> None:
    said = denial(
        f"User: {WHO} is not authorized to perform: sqs:receivemessage on resource: arn:aws:sqs:us-east-1:1:q with an "
        "explicit deny in a service control policy",
        "sqs:ReceiveMessage",
    )
    assert "a service control policy denies it explicitly" in said
    assert "allow sqs" not in said


def test_what_only_an_encoded_message_tells_can_be_decoded() -> None:
    said = denial(
        "You are not authorized to perform this operation. Encoded authorization failure message: AbC-123",
        "ec2:CreateFleet",
    )
    assert "may not do ec2:CreateFleet" in said
    assert "aws sts decode-authorization-message --encoded-message AbC-123" in said


def test_without_any_details_the_call_s_own_action_is_named_and_the_message_repeated() -> None:
    said = denial("You are not authorized to perform this operation.", "ec2:CreateFleet")
    assert "may not do ec2:CreateFleet" in said
    assert "AWS says: You are not authorized" in said
