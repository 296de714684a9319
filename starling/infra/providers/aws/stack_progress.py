"""Following a stack while CloudFormation works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.stack import describe_stack

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef

LOOK_SECONDS = 3.0


def follow(clients: AwsClients, stack: str, say: Callable[[str], None]) -> str:
    """Tell each event until CloudFormation is done; return the stack's status (DELETE_COMPLETE if it is gone).

    Raises Misconfigured with the first failing event if what it did was taken back. ProviderError.
    """
    begun: list[StackEventTypeDef] = []
    told: set[str] = set()
    while True:
        found = describe_stack(clients, stack)
        if found is None:
            return "DELETE_COMPLETE"
        status = found["StackStatus"]
        begun = current_operation(_events(clients, found["StackId"]), stack)
        for event in begun:
            if event["EventId"] not in told and event["LogicalResourceId"] != stack:
                say(f"{event['LogicalResourceId']}: {event['ResourceStatus'].lower().replace('_', ' ')}")
            told.add(event["EventId"])
        if not status.endswith("_IN_PROGRESS"):
            break
        clients.clock.sleep(LOOK_SECONDS)
    if "ROLLBACK" in status or status.endswith("_FAILED"):
        raise Misconfigured(f"stack {stack} in {clients.region} is {status}: {first_failure(begun)}")
    return status


def current_operation(events: Iterable[StackEventTypeDef], stack: str) -> list[StackEventTypeDef]:
    """Of events in any order, those since the newest operation began; oldest first."""
    ordered = sorted(events, key=lambda event: event["Timestamp"])
    starts = [
        index
        for index, event in enumerate(ordered)
        if event["LogicalResourceId"] == stack
        and event["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
    ]
    return ordered[starts[-1] :] if starts else ordered


def first_failure(events: Iterable[StackEventTypeDef]) -> str:
    """What went wrong first; everything after it was only cancelled."""
    for event in events:
        if event["ResourceStatus"].endswith("_FAILED"):
            reason = event.get("ResourceStatusReason", "no reason given")
            return f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}"
    return "no event says why"


def _events(clients: AwsClients, stack_id: str) -> list[StackEventTypeDef]:
    with clients.named("read the stack's events"):
        pages = clients.cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
        return [event for page in pages for event in page["StackEvents"]]
