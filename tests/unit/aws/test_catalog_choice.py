"""Which machines come into question: a pure function of the catalog and the choice."""

from __future__ import annotations

from typing import Any

import pytest

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.catalog import InstanceType, choose
from starling.infra.providers.aws.choice import AwsChoice
from starling.orchestrator.provider_sections import AwsSection


def gpu(name: str, model: str, *, count: int = 1, memory: float = 22888 / 1024, **more: Any) -> InstanceType:
    more = {"gpu_maker": "NVIDIA", **more}
    return InstanceType(name=name, vcpus=8, memory=32.0, gpus=count, gpu_model=model, gpu_memory=memory, **more)


def cpu(name: str, vcpus: int = 4, **more: Any) -> InstanceType:
    return InstanceType(name=name, vcpus=vcpus, memory=8.0, **more)


CATALOG = [
    gpu("g4dn.xlarge", "T4", memory=16.0),
    gpu("g5.xlarge", "A10G"),
    gpu("g5.12xlarge", "A10G", count=4),
    gpu("g5.metal", "A10G"),
    gpu("g6e.xlarge", "L40S", memory=45776 / 1024),
    gpu("g6f.xlarge", "L4", memory=2.8, shared_gpu=True),
    gpu("g4ad.xlarge", "Radeon Pro V520", memory=8.0, gpu_maker="AMD"),
    gpu("g5g.xlarge", "T4g", memory=16.0, architectures=frozenset({"arm64"})),
    gpu("p3.2xlarge", "V100", memory=16.0),
    cpu("c7i.xlarge"),
    cpu("m6a.4xlarge", 16),
    cpu("c7i.large", 2),
    cpu("c7i.8xlarge", 32),
    cpu("c5.xlarge"),
    cpu("c7i-flex.xlarge"),
    cpu("r7i.xlarge"),
]


def names(gpus: int, **choice: Any) -> list[str]:
    return [one.name for one in choose(CATALOG, AwsChoice(**choice), gpus)]


def test_unnamed_types_have_exactly_the_gpus_that_are_asked_for() -> None:
    assert names(1) == ["g4dn.xlarge", "g5.xlarge", "g6e.xlarge"]
    assert names(4) == ["g5.12xlarge"]


def test_old_foreign_and_shared_gpus_and_bare_metal_are_offered_to_nobody_who_does_not_name_them() -> None:
    assert not {"p3.2xlarge", "g4ad.xlarge", "g6f.xlarge", "g5.metal"} & set(names(1))
    assert names(1, instance_types=("g5.metal", "g6f.xlarge")) == ["g5.metal", "g6f.xlarge"]


def test_a_named_type_may_have_more_gpus_but_not_fewer() -> None:
    assert names(1, instance_types=("g5.12xlarge",)) == ["g5.12xlarge"]
    with pytest.raises(Misconfigured, match=r"g5\.xlarge has 1 GPU, too few: name types with 4 GPUs or more"):
        names(4, instance_types=("g5.12xlarge", "g5.xlarge"))


@pytest.mark.parametrize(
    ("gibibytes", "expected"),
    [
        (16, ["g4dn.xlarge", "g5.xlarge", "g6e.xlarge"]),
        (24, ["g5.xlarge", "g6e.xlarge"]),
        (25, ["g6e.xlarge"]),
        (48, ["g6e.xlarge"]),
    ],
)
def test_memory_counts_as_it_is_sold(gibibytes: float, expected: list[str]) -> None:
    """An A10G is sold with 24 GB and counted by EC2 with 22888 MiB."""
    assert names(1, gpu_memory=gibibytes) == expected


def test_cpu_nodes_are_current_plain_machines_of_middle_size() -> None:
    assert names(0) == ["c7i.xlarge", "m6a.4xlarge"]
    assert names(0, instance_types=("c5.xlarge", "g5.xlarge")) == ["c5.xlarge", "g5.xlarge"]


@pytest.mark.parametrize(
    ("gpus", "choice", "said"),
    [
        (1, {"instance_types": ("g5.xlage",)}, r"us-east-1 has no instance type g5\.xlage; did you mean g5\.xlarge\?"),
        (1, {"instance_types": ("g5g.xlarge",)}, "g5g.xlarge is a machine for arm64; nodes must be x86_64"),
        (1, {"instance_types": ("g4ad.xlarge",)}, "g4ad.xlarge has GPUs of AMD"),
        (1, {"instance_types": ("g5.xlarge", "p3.2xlarge")}, r"p3\.2xlarge has a V100.*: name types with a T4"),
        (3, {}, "us-east-1 has no instance type with 3 GPUs"),
        (1, {"gpu_memory": 200.0}, "with 1 GPU of 200 GiB or more"),
        (1, {"gpu_memory": 40.0, "instance_types": ("g5.xlarge",)}, "40 GiB or more among g5.xlarge"),
    ],
)
def test_what_cannot_be_is_said(gpus: int, choice: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        names(gpus, **choice)


def test_the_device_is_what_an_exact_run_keeps_to() -> None:
    assert gpu("g5.xlarge", "A10G").device == "A10G"
    assert cpu("c7i.xlarge").device == "c7i"
    smaller, larger = gpu("p4d.24xlarge", "A100", memory=40.0), gpu("p4de.24xlarge", "A100", memory=80.0)
    assert (smaller.device, larger.device) == ("A100-40GB", "A100-80GB")


def test_a_choice_has_every_key_and_default_of_the_spec() -> None:
    plain = AwsSection(name="aws").model_dump(mode="json")
    assert AwsChoice.from_section(plain) == AwsChoice()
    told = {"name": "aws", "region": "eu-west-1", "zones": ["eu-west-1a"], "instance_types": ["g5.xlarge"]}
    choice = AwsChoice.from_section(AwsSection.model_validate(told).model_dump(mode="json"))
    assert (choice.region, choice.zones, choice.instance_types) == ("eu-west-1", ("eu-west-1a",), ("g5.xlarge",))
    assert {key: value for key, value in plain.items() if key != "name"}.keys() == set(AwsChoice.__dataclass_fields__)
    assert hash(choice)
