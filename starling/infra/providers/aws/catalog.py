"""Which machines AWS has, and in which zones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.choice import AwsChoice

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeInfoTypeDef

    from starling.infra.providers.aws.clients import AwsClients

ARCHITECTURE = "x86_64"
GPU_MAKER = "NVIDIA"
TOO_OLD_GPUS = frozenset({"K520", "K80", "M60", "V100"})
"""Older than Turing: current CUDA builds of torch have no kernels for them (pytorch/pytorch#157517)."""
SOLD_IN_SIZES = frozenset({"A100", "V100"})
"""Models that AWS has with different memory under one name; the device itself reports different names."""
BARE_METAL = ".metal"
"""Takes many minutes to boot, and is no better otherwise."""
GPU_FAMILIES = ["g*", "p*"]
CPU_FAMILIES = ["c?a.*", "c?i.*", "m?a.*", "m?i.*"]
CPU_FAMILY = re.compile(r"[cm](\d)[ai]\.")
OLDEST_CPU_GENERATION = 6
CPU_VCPUS = range(4, 17)
"""Enough to load data and compute, and small enough to be cheap by default; anything else can be named."""
SOLD_AS = 0.93
"""AWS counts some GPUs' memory in GB of 10^9 bytes: what is sold as 24 GB is 22.35 GiB, and must pass for 24."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceType:
    """One kind of machine."""

    name: str
    vcpus: int
    memory: float
    """GiB."""
    gpus: int = 0
    gpu_model: str | None = None
    gpu_memory: float = 0.0
    """GiB of one GPU."""
    gpu_maker: str | None = None
    shared_gpu: bool = False
    """It has a slice of a GPU, which needs a driver of its own."""
    architectures: frozenset[str] = frozenset({ARCHITECTURE})
    markets: frozenset[str] = frozenset({"spot", "on-demand"})

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def device(self) -> str:
        """What an exact run keeps to: the model of the GPU, or the family of a machine without."""
        if self.gpu_model in SOLD_IN_SIZES:
            return f"{self.gpu_model}-{self.gpu_memory:.0f}GB"
        return self.gpu_model or self.family


@dataclass(frozen=True, kw_only=True, slots=True)
class Zone:
    name: str
    id: str
    """The same place has the same id in every account; names are dealt out anew in each."""


def choose(found: Iterable[InstanceType], choice: AwsChoice, gpus: int) -> list[InstanceType]:
    """The machines of the catalog that serve a node with so many GPUs.

    Named types are taken as they are, if they can serve at all; others must have exactly the GPUs that are asked for.
    Raises Misconfigured if a named type does not exist or cannot serve, or if nothing is left.
    """
    types = {one.name: one for one in found}
    if choice.instance_types is None:
        chosen = [one for one in types.values() if _fits(one, gpus)]
    else:
        chosen = [_named(name, types, choice.region, gpus) for name in dict.fromkeys(choice.instance_types)]
    chosen = [one for one in chosen if one.gpu_memory >= SOLD_AS * (choice.gpu_memory or 0.0)]
    if not chosen:
        raise Misconfigured(f"{choice.region} has no instance type {_wanted(choice, gpus)}")
    return sorted(chosen, key=lambda one: one.name)


def read_types(clients: AwsClients, names: Sequence[str] | None, gpus: int) -> list[InstanceType]:
    """What EC2 says about the named types, or about all that come into question; names it does not know are missing."""
    filters: list[FilterTypeDef] = [{"Name": "instance-type", "Values": list(names or _families(gpus))}]
    if names is None:
        filters.append({"Name": "processor-info.supported-architecture", "Values": [ARCHITECTURE]})
    if names is None and not gpus:
        filters.append({"Name": "vcpu-info.default-vcpus", "Values": [str(count) for count in CPU_VCPUS]})
    with clients.named("list instance types"):
        pages = clients.ec2.get_paginator("describe_instance_types").paginate(Filters=filters)
        return [_instance_type(info) for page in pages for info in page["InstanceTypes"]]


def read_zones(clients: AwsClients, wanted: Sequence[str] | None) -> list[Zone]:
    """The region's usable availability zones, or those that are wanted. Raises Misconfigured if one does not exist."""
    filters: list[FilterTypeDef] = [
        {"Name": "zone-type", "Values": ["availability-zone"]},
        {"Name": "state", "Values": ["available"]},
    ]
    with clients.named("list availability zones"):
        told = clients.ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"]
    zones = {zone["ZoneName"]: Zone(name=zone["ZoneName"], id=zone["ZoneId"]) for zone in told}
    for name in wanted or ():
        if name not in zones:
            raise Misconfigured(f"provider.zones: {clients.region} has no zone {name}; it has {', '.join(zones)}")
    return [zone for name, zone in zones.items() if wanted is None or name in wanted]


def read_offerings(clients: AwsClients, names: Sequence[str]) -> set[tuple[str, str]]:
    """Where these types exist at all: pairs of type and zone."""
    with clients.named("list where instance types are offered"):
        pages = clients.ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(names)}]
        )
        return {
            (offering["InstanceType"], offering["Location"])
            for page in pages
            for offering in page["InstanceTypeOfferings"]
        }


def unknown_type(name: str, region: str) -> Misconfigured:
    """The error for a name that EC2 does not know in a region."""
    from starling.infra.providers.aws.on_demand_prices import shipped_names

    close = difflib.get_close_matches(name, shipped_names(), n=1, cutoff=0.8)
    hint = f"; did you mean {close[0]}?" if close and close[0] != name else ""
    return Misconfigured(f"{region} has no instance type {name}{hint}")


def _fits(one: InstanceType, gpus: int) -> bool:
    """Whether a machine that nobody named may be offered."""
    if ARCHITECTURE not in one.architectures or BARE_METAL in one.name:
        return False
    if gpus == 0:
        generation = CPU_FAMILY.match(one.name)
        return bool(generation and int(generation[1]) >= OLDEST_CPU_GENERATION and one.vcpus in CPU_VCPUS)
    if one.gpu_maker != GPU_MAKER or one.gpu_model in TOO_OLD_GPUS or one.shared_gpu:
        return False
    return one.gpus == gpus


def _named(name: str, types: dict[str, InstanceType], region: str, gpus: int) -> InstanceType:
    if (one := types.get(name)) is None:
        raise unknown_type(name, region)
    if ARCHITECTURE not in one.architectures:
        has = ", ".join(sorted(one.architectures))
        raise Misconfigured(f"{name} is a machine for {has}; nodes must be {ARCHITECTURE}")
    if gpus and one.gpu_maker not in (GPU_MAKER, None):
        raise Misconfigured(f"{name} has GPUs of {one.gpu_maker}; training needs {GPU_MAKER}'s")
    if gpus and one.gpu_model in TOO_OLD_GPUS:
        raise Misconfigured(
            f"{name} has a {one.gpu_model}, for which current builds of torch have no kernels: name types with a T4 or"
            " newer (g4dn, g5, g6, g6e, p4d, p5)"
        )
    if one.gpus < gpus:
        raise Misconfigured(f"{name} has {_gpus(one.gpus)}, too few: name types with {_gpus(gpus)} or more")
    return one


def _wanted(choice: AwsChoice, gpus: int) -> str:
    memory = f" of {choice.gpu_memory:g} GiB or more" if choice.gpu_memory else ""
    among = f" among {', '.join(choice.instance_types)}" if choice.instance_types else ""
    return f"with {_gpus(gpus)}{memory}{among}"


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _families(gpus: int) -> list[str]:
    return GPU_FAMILIES if gpus else CPU_FAMILIES


def _instance_type(info: InstanceTypeInfoTypeDef) -> InstanceType:
    """All GPUs of one machine are alike: the first kind tells."""
    kinds = info.get("GpuInfo", {}).get("Gpus", [])
    gpu = kinds[0] if kinds else None
    whole = gpu.get("Count", 0) if gpu else 0
    return InstanceType(
        name=info["InstanceType"],
        vcpus=info["VCpuInfo"]["DefaultVCpus"],
        memory=info["MemoryInfo"]["SizeInMiB"] / 1024,
        gpus=(whole or gpu.get("LogicalGpuCount", 0)) if gpu else 0,
        gpu_model=gpu["Name"] if gpu else None,
        gpu_memory=gpu["MemoryInfo"]["SizeInMiB"] / 1024 if gpu else 0.0,
        gpu_maker=gpu["Manufacturer"] if gpu else None,
        shared_gpu=gpu is not None and whole == 0,
        architectures=frozenset(info["ProcessorInfo"]["SupportedArchitectures"]),
        markets=frozenset(info["SupportedUsageClasses"]),
    )
