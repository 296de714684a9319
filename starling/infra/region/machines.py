"""Machines of the emulated cloud as moto keeps them: all of them, what they count as, and how one is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.models.instances import Instance

from starling.infra.records import Market
from starling.infra.region.calls import Refused
from starling.infra.region.pools import Pool

LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")


def all_machines() -> Iterator[Instance]:
    """Of every region, ended ones included."""
    for backend in list(ec2_backends[DEFAULT_ACCOUNT_ID].values()):
        yield from backend.all_instances()


def pool_of(machine: Instance) -> Pool:
    market = Market.SPOT if machine.lifecycle == "spot" else Market.ON_DEMAND
    return Pool(instance_type=machine.instance_type, zone=str(machine.availability_zone), market=market)


def living_pools() -> list[Pool]:
    return [pool_of(machine) for machine in all_machines() if machine.state in LIVING]


def vcpus(instance_type: str) -> int:
    return int(INSTANCE_TYPES.get(instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 1))


def gpus(instance_type: str) -> tuple[int, str, int]:
    """How many GPUs a type has, their model, and MiB of each."""
    kinds = INSTANCE_TYPES.get(instance_type, {}).get("GpuInfo", {}).get("Gpus", [])
    if not kinds:
        return 0, "", 0
    return int(kinds[0].get("Count", 0)), kinds[0]["Name"], int(kinds[0]["MemoryInfo"]["SizeInMiB"])


def is_offered(instance_type: str, zone: str) -> bool:
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(zone[:-1], [])
    return any(each["InstanceType"] == instance_type and each["Location"] == zone for each in offered)


def tags_of(machine: Instance) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in machine.get_tags()}


def start_machine(
    backend: Any, data: Mapping[str, Any], *, market: Market, tags: Mapping[str, Mapping[str, str]], fleet: str | None
) -> Instance:
    """One machine from the merged data of a launch template and its override. Raises Refused or moto's exceptions."""
    # moto gives the groups of a template's interface to the interface only, not to the machine.
    groups = [*data.get("SecurityGroupIds", [])]
    nics = [{**nic, "SubnetId": data["SubnetId"]} for nic in data.get("NetworkInterfaces", [])]
    for nic in nics:
        groups += nic.pop("Groups", [])
    extra: dict[str, Any] = {}
    if data.get("BlockDeviceMappings"):
        extra["block_device_mappings"] = data["BlockDeviceMappings"]
    reservation = backend.run_instances(
        data.get("ImageId"),
        1,
        data.get("UserData"),
        data.get("SecurityGroups", []),
        instance_type=data["InstanceType"],
        is_instance_type_default=False,
        region_name=backend.region_name,
        subnet_id=data["SubnetId"],
        nics=nics,
        key_name=data.get("KeyName"),
        security_group_ids=groups,
        tags=tags,
        metadata_options=data.get("MetadataOptions", {}),
        instance_initiated_shutdown_behavior=data.get("InstanceInitiatedShutdownBehavior"),
        ebs_optimized=data.get("EbsOptimized", False),
        lifecycle="spot" if market is Market.SPOT else None,
        fleet_id=fleet,
        **extra,
    )
    machine: Instance = reservation.instances[0]
    _give_profile(backend, machine, data.get("IamInstanceProfile") or {})
    return machine


def _give_profile(backend: Any, machine: Instance, profile: Mapping[str, str]) -> None:
    if not profile:
        return
    try:
        backend.associate_iam_instance_profile(
            instance_id=machine.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )
    except Exception as error:
        machine.terminate()
        raise Refused(
            "InvalidParameterValue", f"Value ({profile}) for parameter iamInstanceProfile is invalid: {error}"
        ) from error
