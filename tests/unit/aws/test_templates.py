"""A run's launch template: a pure function of the set-up's and the run's own."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import botocore.session
import pytest

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws.images import CPU_IMAGE, GPU_IMAGE, Image, image_setting
from starling.infra.providers.aws.tags import OWNER, STORE, run_tags
from starling.infra.providers.aws.templates import TemplatePlan, only_known, template_data

TAGS = run_tags(stack="starling", store_uri="s3://b/store", run="run", owner="ada")
PLAN = TemplatePlan(
    stack="starling",
    run="run",
    base_id="lt-1",
    base_revision="1",
    image=GPU_IMAGE,
    disk=100,
    user_data="#!/bin/sh\n",
    tags=TAGS,
)
IMAGE = Image(id="ami-1", name="an image", root_device="/dev/sda1", size=75)
BASE: Any = {"MetadataOptions": {"HttpTokens": "required"}, "BlockDeviceMappings": [{"DeviceName": "/dev/xvda"}]}


def test_equal_plans_have_equal_names_and_others_do_not() -> None:
    others = [
        replace(PLAN, **{name: value})  # type: ignore[arg-type]
        for name, value in (
            ("disk", 101),
            ("user_data", "x"),
            ("image", CPU_IMAGE),
            ("base_revision", "2"),
            ("run", "b"),
        )
    ]
    others.append(replace(PLAN, tags=TAGS | {STORE: "s3://c/store"}))
    assert len({PLAN.name, *(other.name for other in others)}) == len(others) + 1
    assert replace(PLAN, tags=TAGS | {OWNER: "bob"}).name == PLAN.name, "who launches first must not matter"


def test_names_are_never_too_long() -> None:
    plan = replace(PLAN, stack="s" * 31, run="r" * 120)
    assert len(plan.name) == 128
    assert plan.name != replace(plan, disk=7).name


def test_a_run_s_own_lies_over_the_base() -> None:
    data = template_data(BASE, IMAGE, PLAN)
    assert data["MetadataOptions"] == {"HttpTokens": "required"}
    assert data["ImageId"] == "ami-1"
    assert base64.b64decode(data["UserData"]).decode() == PLAN.user_data
    assert data["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True, "VolumeSize": 100},
        }
    ]
    assert [spec["ResourceType"] for spec in data["TagSpecifications"]] == ["volume"]


def test_a_disk_that_is_too_small_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"provider\.disk: 50 GiB cannot hold image ami-1; it needs 75 GiB"):
        template_data(BASE, IMAGE, replace(PLAN, disk=50))


def test_what_ec2_shows_and_does_not_take_is_left_out() -> None:
    shape = botocore.session.Session().get_service_model("ec2").shape_for("RequestLaunchTemplateData")
    shown = {
        "MetadataOptions": {"State": "applied", "HttpTokens": "required"},
        "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-1"], "Unheard": 1}],
        "Unheard": {},
    }
    assert only_known(shown, shape) == {
        "MetadataOptions": {"HttpTokens": "required"},
        "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-1"]}],
    }


@pytest.mark.parametrize(
    ("given", "gpus", "setting"), [(None, 1, GPU_IMAGE), (None, 0, CPU_IMAGE), ("ami-1", 1, "ami-1")]
)
def test_the_image_fits_the_node_unless_the_spec_names_one(given: str | None, gpus: int, setting: str) -> None:
    assert image_setting(given, gpus) == setting
