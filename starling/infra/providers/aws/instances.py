"""EC2's instances as machines of ours. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starling.infra.providers.aws.tags import NODE, STORE, as_dict
from starling.infra.providers.base import Machine
from starling.infra.records import Market, Notice, NoticeKind

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

ALIVE = frozenset({"pending", "running"})
"""States in which an instance works for us, and is billed."""
NOT_GONE = ("pending", "running", "stopping", "stopped")
"""States in which there is something to terminate."""

_REASONS = {
    "Server.SpotInstanceTermination": "taken by AWS (spot interruption)",
    "Server.SpotInstanceShutdown": "taken by AWS (spot interruption)",
    "Server.InsufficientInstanceCapacity": "AWS had no capacity to start it",
    "Server.InternalError": "AWS failed to run it",
    "Server.ScheduledStop": "taken by AWS (scheduled retirement)",
    "Client.UserInitiatedShutdown": "terminated",
    "Client.InstanceTerminated": "terminated",
    "Client.InstanceInitiatedShutdown": "shut itself down",
    "Client.UserInitiatedHibernate": "hibernated by somebody",
    "Client.InternalError": "could not start: its encrypted volume could not be opened (check the KMS key's policy)",
    "Client.InvalidSnapshot.NotFound": "could not start: the image's snapshot is gone",
    "Client.VolumeLimitExceeded": "could not start: the account's limit of EBS volumes is reached",
}
"""https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html"""
_TAKEN = frozenset(
    {
        "Server.SpotInstanceTermination",
        "Server.SpotInstanceShutdown",
        "Server.InsufficientInstanceCapacity",
        "Server.ScheduledStop",
    }
)
"""Of these: AWS wanted the machine back, or had none."""
_WHEN = re.compile(r"\((?P<when>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")


def machine(instance: InstanceTypeDef, notices: Mapping[str, Notice], ended: Mapping[str, float]) -> Machine:
    """One instance; `notices` and `ended` (when it ended) are what events said, by instance id."""
    instance_id = instance["InstanceId"]
    alive = instance["State"]["Name"] in ALIVE
    return Machine(
        node=as_dict(instance.get("Tags")).get(NODE, ""),
        instance_id=instance_id,
        alive=alive,
        launched_at=instance["LaunchTime"].timestamp(),
        ended_at=None if alive else _ended_at(instance) or ended.get(instance_id),
        ended_reason=None if alive else ended_reason(instance),
        taken=not alive and _was_taken(instance, notices.get(instance_id)),
        address=instance.get("PrivateIpAddress"),
        instance_type=instance["InstanceType"],
        zone=instance["Placement"].get("AvailabilityZone"),
        market=Market.SPOT if instance.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
        notice=notices.get(instance_id) if alive else None,
    )


def of_store(instances: Iterable[InstanceTypeDef], store_uri: str | None) -> list[InstanceTypeDef]:
    """Those that work for this store; two stores may hold runs of one name. Not asked of EC2: in a filter's value it
    takes * and ? for wildcards, and store URIs hold them. None: all."""
    if store_uri is None:
        return list(instances)
    return [instance for instance in instances if as_dict(instance.get("Tags")).get(STORE) == store_uri]


def ended_reason(instance: InstanceTypeDef) -> str:
    """Why an instance is no longer running, in words for the user."""
    reason = instance.get("StateReason", {})
    code, message = reason.get("Code", ""), reason.get("Message", "")
    known = _REASONS.get(code) or message or instance.get("StateTransitionReason", "")
    if instance["State"]["Name"] in ("stopping", "stopped"):
        return f"stopped, but not terminated ({known or 'no reason given'})"
    return known or "ended for a reason that AWS does not tell"


def _was_taken(instance: InstanceTypeDef, notice: Notice | None) -> bool:
    """One that was to be taken, and switched itself off before, counts as well."""
    announced = notice is not None and notice.kind is NoticeKind.INTERRUPTION
    return announced or instance.get("StateReason", {}).get("Code") in _TAKEN


def _ended_at(instance: InstanceTypeDef) -> float | None:
    found = _WHEN.search(instance.get("StateTransitionReason", ""))
    return datetime.strptime(found["when"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() if found else None
