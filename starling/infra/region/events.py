"""What EC2 tells EventBridge about machines; moto delivers events to queues, but EC2 makes none there."""

from __future__ import annotations

import json
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models.instances import Instance
from moto.events.models import events_backends

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_WARNING = "EC2 Spot Instance Interruption Warning"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
_REBALANCE = "EC2 Instance Rebalance Recommendation"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
_STATE = "EC2 Instance State-change Notification"


def tell_interruption(machine: Instance) -> None:
    _tell(machine, _WARNING, {"instance-id": machine.id, "instance-action": "terminate"})


def tell_rebalance(machine: Instance) -> None:
    _tell(machine, _REBALANCE, {"instance-id": machine.id})


def tell_state(machine: Instance, state: str) -> None:
    _tell(machine, _STATE, {"instance-id": machine.id, "state": state})


def _tell(machine: Instance, detail_type: str, detail: dict[str, Any]) -> None:
    region = str(machine.availability_zone)[:-1]
    event = {
        "Source": "aws.ec2",
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": [f"arn:aws:ec2:{region}:{DEFAULT_ACCOUNT_ID}:instance/{machine.id}"],
    }
    events_backends[DEFAULT_ACCOUNT_ID][region].put_events([event])
