"""`starling gc` against the emulated cloud, with S3 on a real server: what is garbage, and that the rest stays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.ec2.models import ec2_backends
from typer.testing import CliRunner, Result

from starling.cli.app import app
from starling.infra import layout
from starling.infra.errors import NotAuthorised, StarlingError
from starling.infra.providers.aws import tags
from starling.infra.records import Market, NodeIntent, Offer, RunState, Verdict
from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store, open_store
from starling.orchestrator.runs import create_run
from tests.support.account import ACCOUNT, REGION, client, set_up
from tests.support.specs import spec

OLD = 3600.0
OFFER = Offer(provider="aws", instance_type="m5.large", zone="us-east-1a", market=Market.SPOT, price_per_hour=0.04)


@pytest.fixture(scope="module")
def account(s3_server: S3Server) -> Iterator[EmulatedCloud]:
    with EmulatedCloud(s3=s3_server) as cloud, pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        set_up()
        yield cloud


@pytest.fixture
def cloud(account: EmulatedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[EmulatedCloud]:
    """With nothing in it but the set-up, before and after."""
    monkeypatch.setenv("STARLING_HOME", str(tmp_path))
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)
    yield account
    for instance in account.instances():
        if instance.alive:
            client("ec2").terminate_instances(InstanceIds=[instance.id])
    for template in client("ec2").describe_launch_templates()["LaunchTemplates"]:
        if template["LaunchTemplateName"] != "starling-base":
            client("ec2").delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    for volume in client("ec2").describe_volumes(Filters=[{"Name": "status", "Values": ["available"]}])["Volumes"]:
        client("ec2").delete_volume(VolumeId=volume["VolumeId"])


@pytest.fixture
def store(cloud: EmulatedCloud, s3_server: S3Server) -> Store:
    return open_store(s3_server.new_bucket())


def gc(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["gc", *arguments])


def found(*arguments: str) -> dict[str, tuple[str, str]]:
    """Id -> (fate, why)."""
    result = gc("--json", *arguments)
    assert result.exit_code == 0, result.exception
    return {each["id"]: (each["fate"], each["why"]) for each in json.loads(result.stdout)["resources"]}


def marks(store_uri: str, run: str, node: str | None = None) -> Any:
    given = tags.run_tags(stack="starling", store_uri=store_uri, run=run, owner="ada")
    return tags.as_list(tags.node_tags(given, node, 0) if node else given)


def instance(store_uri: str, run: str, node: str, *, age: float = OLD) -> str:
    made = client("ec2").run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": marks(store_uri, run, node)}],
    )["Instances"][0]["InstanceId"]
    backend = ec2_backends[ACCOUNT][REGION]
    backend.get_instance(made).launch_time = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=age)
    return str(made)


def template(store_uri: str, run: str) -> str:
    made = client("ec2").create_launch_template(
        LaunchTemplateName=f"starling-starling-{run}-0",
        LaunchTemplateData={"ImageId": "ami-12345678"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": marks(store_uri, run)}],
    )["LaunchTemplate"]["LaunchTemplateId"]
    backend = ec2_backends[ACCOUNT][REGION]
    backend.launch_templates[made].create_time = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=OLD)
    return str(made)


def run_with_node(store: Store, name: str, instance_id: str | None = None) -> str:
    create_run(store, spec(), name=name)
    node = layout.node_id(name, 0, 0)
    intent = NodeIntent(
        node=node,
        run=name,
        incarnation=0,
        slot=0,
        generation=0,
        offer=OFFER,
        wanted_at=time.time() - OLD,
        authorised_until=None,
        instance_id=instance_id,
    )
    store.create(layout.intent(node), intent.to_bytes())
    return node


def end(store: Store, run: str) -> None:
    verdict = Verdict(state=RunState.DONE, at=time.time() - OLD, by="test", reason="all steps done")
    store.create(layout.verdict(run, 0), verdict.to_bytes())


def intent_of(store: Store, node: str) -> NodeIntent:
    return NodeIntent.from_bytes(store.get(layout.intent(node)).data)


def test_a_fresh_set_up_has_no_garbage(cloud: EmulatedCloud) -> None:
    assert found() == {}
    assert found("--delete") == {}


def test_a_live_run_keeps_its_machine_and_an_ended_one_does_not(cloud: EmulatedCloud, store: Store) -> None:
    alive, ended = run_with_node(store, "alive"), run_with_node(store, "ended")
    end(store, "ended")
    kept, leaked = instance(store.uri, "alive", alive), instance(store.uri, "ended", ended)
    kept_template, leaked_template = template(store.uri, "alive"), template(store.uri, "ended")

    looked = found()
    assert {name: fate for name, (fate, _) in looked.items()} == {
        kept: "owned",
        leaked: "garbage",
        kept_template: "owned",
        leaked_template: "garbage",
    }
    assert looked[leaked][1] == "run ended is done"
    assert cloud.calls["TerminateInstances"] == 0, "without --delete nothing is changed"

    assert gc("--delete").exit_code == 0
    assert {each.id for each in cloud.instances() if each.alive} == {kept}
    assert set(found()) == {kept, kept_template}
    told_to_end = intent_of(store, ended).terminate
    assert told_to_end is not None
    assert told_to_end.reason == "gc: run ended is done"
    assert intent_of(store, alive).terminate is None


def test_a_machine_whose_store_cannot_be_read_is_left_alone(cloud: EmulatedCloud, s3_server: S3Server) -> None:
    gone = f"s3://no-such-bucket-1/store?endpoint_url={s3_server.endpoint_url}&region={REGION}"
    left = instance(gone, "trial", "trial.0.0")
    assert found()[left][0] == "unknown"
    assert gc("--delete").exit_code == 0
    assert [each.id for each in cloud.instances() if each.alive] == [left]


def test_a_machine_that_was_launched_just_now_is_left_alone(cloud: EmulatedCloud, store: Store) -> None:
    node = run_with_node(store, "young")
    end(store, "young")
    young = instance(store.uri, "young", node, age=1)
    gc("--delete")
    assert [each.id for each in cloud.instances() if each.alive] == [young]


def test_a_stray_of_a_live_node_is_ended_without_ending_the_node(cloud: EmulatedCloud, store: Store) -> None:
    create_run(store, spec(), name="twice")
    node = layout.node_id("twice", 0, 0)
    first = instance(store.uri, "twice", node)
    stray = instance(store.uri, "twice", node)
    intent = NodeIntent(
        node=node,
        run="twice",
        incarnation=0,
        slot=0,
        generation=0,
        offer=OFFER,
        wanted_at=0,
        authorised_until=None,
        instance_id=first,
    )
    store.create(layout.intent(node), intent.to_bytes())
    assert found()[stray][0] == "garbage"
    gc("--delete")
    assert [each.id for each in cloud.instances() if each.alive] == [first]
    assert intent_of(store, node).terminate is None


def test_a_free_volume_is_removed(cloud: EmulatedCloud, store: Store) -> None:
    create_run(store, spec(), name="disks")
    volume = client("ec2").create_volume(
        AvailabilityZone="us-east-1a",
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": marks(store.uri, "disks")}],
    )["VolumeId"]
    assert found()[volume][0] == "owned"
    backend = ec2_backends[ACCOUNT][REGION]
    backend.volumes[volume].create_time = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=OLD)
    assert found()[volume] == ("garbage", "no machine uses it")
    gc("--delete")
    assert volume not in found()


def test_what_has_no_tag_of_ours_does_not_show(cloud: EmulatedCloud) -> None:
    client("ec2").run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)
    assert found() == {}


def test_unfinished_uploads_of_a_store(cloud: EmulatedCloud, store: Store) -> None:
    create_run(store, spec(), name="uploads")
    bucket, prefix = store.uri.removeprefix("s3://").partition("?")[0].split("/")
    s3 = client("s3")
    s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/runs/uploads/checkpoints/1/part")
    s3.create_multipart_upload(Bucket=bucket, Key="another-store/runs/uploads/checkpoints/1/part")
    result = gc("--json", "--store", store.uri)
    (upload,) = json.loads(result.stdout)["resources"]
    assert (upload["kind"], upload["run"], upload["fate"]) == ("upload", "uploads", "owned")
    assert upload["detail"] == "runs/uploads/checkpoints/1/part"


def test_a_store_that_was_asked_for_must_be_there(cloud: EmulatedCloud) -> None:
    result = gc("--store", "s3://no-such-bucket-2/store")
    assert isinstance(result.exception, StarlingError)
    assert "no-such-bucket-2" in str(result.exception)


def test_all_regions_are_looked_at(cloud: EmulatedCloud, store: Store) -> None:
    ec2: Any = client("ec2", "eu-west-1")
    made = ec2.run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": marks(store.uri, "far", "far.0.0")}],
    )["Instances"][0]["InstanceId"]
    try:
        assert made not in found()
        assert made in found("--regions", "us-east-1,eu-west-1")
    finally:
        ec2.terminate_instances(InstanceIds=[made])


def test_a_region_that_may_not_be_looked_at_does_not_hide_the_others(cloud: EmulatedCloud, store: Store) -> None:
    node = run_with_node(store, "here")
    end(store, "here")
    leaked = instance(store.uri, "here", node)
    cloud.fail("DescribeInstances", "UnauthorizedOperation", times=1)
    cloud.fail("DescribeStacks", "AccessDenied", times=2)
    result = gc("--json", "--regions", "eu-west-1,us-east-1")
    assert result.exit_code == 0, result.exception
    assert [each["id"] for each in json.loads(result.stdout)["resources"]] == [leaked]
    assert "eu-west-1 is not looked at" in result.stderr
    assert "unfinished uploads of stack starling in us-east-1 are not looked for" in result.stderr


def test_the_only_region_must_be_looked_at(cloud: EmulatedCloud) -> None:
    cloud.fail("DescribeInstances", "UnauthorizedOperation", times=1)
    assert isinstance(gc().exception, NotAuthorised)


def test_one_that_cannot_be_removed_does_not_keep_the_rest(cloud: EmulatedCloud, store: Store) -> None:
    node = run_with_node(store, "stuck")
    end(store, "stuck")
    leaked, leaked_template = instance(store.uri, "stuck", node), template(store.uri, "stuck")
    cloud.fail("DeleteLaunchTemplate", "UnauthorizedOperation", times=1)
    result = gc("--delete", "--json")
    assert result.exit_code == 1
    told = {each["id"]: each for each in json.loads(result.stdout)["resources"]}
    assert told[leaked]["deleted"] is True
    assert told[leaked_template]["deleted"] is False
    assert "ec2:DeleteLaunchTemplate" in told[leaked_template]["error"]


def test_the_table_says_why(cloud: EmulatedCloud, store: Store) -> None:
    node = run_with_node(store, "shown")
    end(store, "shown")
    leaked = instance(store.uri, "shown", node)
    text = gc().stdout
    assert leaked in text
    assert "run shown is done" in text
    assert "nothing was changed" in text
