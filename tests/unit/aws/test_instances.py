"""EC2's instances as machines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from starling.infra.providers.aws import tags
from starling.infra.providers.aws.instances import machine, of_store
from starling.infra.providers.aws.tags import as_list
from starling.infra.providers.base import Machine
from starling.infra.records import Market, Notice, NoticeKind

LAUNCHED = datetime(2026, 10, 7, 15, 50, tzinfo=UTC)
NOTICE = Notice(id="n", kind=NoticeKind.INTERRUPTION, seen_at=1.0, takes_effect_at=121.0)


def instance(state: str = "running", **rest: Any) -> Any:
    return {
        "InstanceId": "i-1",
        "InstanceType": "g5.xlarge",
        "State": {"Name": state},
        "LaunchTime": LAUNCHED,
        "PrivateIpAddress": "10.0.0.7",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "InstanceLifecycle": "spot",
        "Tags": as_list({tags.NODE: "run.0.0", tags.STORE: "s3://b/store?region=us-east-1"}),
    } | rest


def seen(state: str = "running", **rest: Any) -> Machine:
    return machine(instance(state, **rest), {"i-1": NOTICE}, {"i-1": 77.0})


def test_what_a_machine_is() -> None:
    assert seen() == Machine(
        node="run.0.0",
        instance_id="i-1",
        alive=True,
        launched_at=LAUNCHED.timestamp(),
        address="10.0.0.7",
        instance_type="g5.xlarge",
        zone="us-east-1a",
        market=Market.SPOT,
        notice=NOTICE,
    )


@pytest.mark.parametrize("state", ["pending", "running"])
def test_states_that_are_billed_are_alive(state: str) -> None:
    assert seen(state).alive


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopping", "stopped"])
def test_other_states_are_not(state: str) -> None:
    assert not seen(state).alive
    assert seen(state).notice is None


def test_without_a_lifecycle_it_is_on_demand() -> None:
    listed = instance()
    del listed["InstanceLifecycle"]
    assert machine(listed, {}, {}).market is Market.ON_DEMAND


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("Server.SpotInstanceTermination", "taken by AWS (spot interruption)"),
        ("Server.InsufficientInstanceCapacity", "AWS had no capacity to start it"),
        ("Client.InstanceInitiatedShutdown", "shut itself down"),
        ("Client.UserInitiatedShutdown", "terminated"),
        ("Client.BrandNew", "AWS's own words"),
    ],
)
def test_why_it_ended(code: str, reason: str) -> None:
    ended = seen("terminated", StateReason={"Code": code, "Message": "AWS's own words"})
    assert ended.ended_reason == reason


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        ("Server.SpotInstanceTermination", True),
        ("Server.SpotInstanceShutdown", True),
        ("Server.InsufficientInstanceCapacity", True),
        ("Server.InternalError", False),
        ("Client.InstanceInitiatedShutdown", False),
        ("Client.UserInitiatedShutdown", False),
    ],
)
@pytest.mark.parametrize("told_before", [None, NoticeKind.REBALANCE, NoticeKind.INTERRUPTION])
def test_whether_aws_took_it(code: str, taken: bool, told_before: NoticeKind | None) -> None:
    notices = {"i-1": NOTICE.but(kind=told_before)} if told_before else {}
    ended = machine(instance("shutting-down", StateReason={"Code": code}), notices, {})
    assert ended.taken is (taken or told_before is NoticeKind.INTERRUPTION)
    assert not seen().taken, "it is announced, and works until then"


def test_a_machine_that_is_only_stopped_says_so() -> None:
    assert "stopped, but not terminated" in str(seen("stopped").ended_reason)


def test_when_it_ended_is_told_by_ec2_or_else_by_the_event() -> None:
    told = seen("terminated", StateTransitionReason="User initiated (2026-10-07 16:00:00 GMT)")
    assert told.ended_at == LAUNCHED.timestamp() + 600
    assert seen("terminated", StateTransitionReason="Server.SpotInstanceTermination").ended_at == 77.0
    assert seen().ended_at is None


def test_machines_of_other_stores_are_left_out() -> None:
    mine, other = instance(), instance(Tags=as_list({tags.STORE: "s3://b/store"}))
    assert of_store([mine, other], "s3://b/store?region=us-east-1") == [mine]
    assert of_store([mine, other], None) == [mine, other]
