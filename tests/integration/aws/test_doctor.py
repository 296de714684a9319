"""`starling doctor`: each check finds what is wrong and names its fix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from starling.cli.app import app
from starling.infra.clock import FakeClock
from starling.infra.providers.aws.checkup.account import QUOTAS, check_clock
from starling.infra.providers.aws.checkup.finding import Health
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.images import CPU_IMAGE, GPU_IMAGE, find_image
from starling.infra.region.cloud import EmulatedCloud
from tests.support.account import ACCOUNT, REGION, client, fresh_account, set_up

BUCKET = f"starling-{ACCOUNT}-{REGION}"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with pytest.MonkeyPatch.context() as patch, fresh_account(patch) as cloud:
        patch.setenv("STARLING_HOME", str(tmp_path_factory.mktemp("home")))
        set_up()
        yield cloud


@pytest.fixture
def cloud(account: EmulatedCloud) -> Iterator[EmulatedCloud]:
    yield account
    account.heal()


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def checks(*arguments: str) -> dict[str, dict[str, Any]]:
    result = doctor("--json", *arguments)
    told = json.loads(result.stdout)
    found = {each["name"]: each for each in told["checks"]}
    failed = any(each["health"] == Health.FAIL for each in found.values())
    assert (result.exit_code, told["ok"]) == (1 if failed else 0, not failed)
    return found


def test_a_fresh_set_up_is_well(cloud: EmulatedCloud) -> None:
    found = checks()
    # The default VPC of the emulated cloud has no internet gateway.
    assert {name for name, each in found.items() if each["health"] != Health.OK} <= {"network", "extras"}
    assert set(found) >= {
        "credentials",
        "clock",
        "region",
        "spot role",
        "stack",
        "bucket",
        "public access",
        "permissions",
    }
    assert cloud.calls["CreateFleet"] >= 1
    assert cloud.instances() == [], "dry runs launch nothing"


def test_whatever_is_wrong_has_a_fix(cloud: EmulatedCloud) -> None:
    wrong = [each for each in checks("--stack", "missing").values() if each["health"] in (Health.FAIL, Health.WARN)]
    assert wrong
    assert all(each["fix"] or "run `" in each["says"] for each in wrong)


def test_a_missing_stack_is_told_with_the_command(cloud: EmulatedCloud) -> None:
    found = checks("--stack", "lab")
    assert found["stack"]["health"] == Health.FAIL
    assert "`starling aws setup --region us-east-1 --stack lab`" in found["stack"]["says"]
    assert "bucket" not in found


def test_an_outdated_stack_is_a_warning(cloud: EmulatedCloud) -> None:
    cloudformation = client("cloudformation")
    body = cloudformation.get_template(StackName="starling")["TemplateBody"]
    current = json.loads(body) if isinstance(body, str) else body
    older = json.loads(json.dumps(current))
    older["Outputs"]["Revision"]["Value"] = "older"
    named = {"StackName": "starling", "Capabilities": ["CAPABILITY_NAMED_IAM"]}
    cloudformation.update_stack(TemplateBody=json.dumps(older), **named)
    try:
        found = checks()["stack"]
    finally:
        cloudformation.update_stack(TemplateBody=json.dumps(current), **named)
    assert found["health"] == Health.WARN
    assert "starling aws setup" in found["fix"]


def test_an_open_bucket_is_found(cloud: EmulatedCloud) -> None:
    s3 = client("s3")
    settings = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    s3.put_public_access_block(
        Bucket=BUCKET, PublicAccessBlockConfiguration={**settings, "RestrictPublicBuckets": False}
    )
    try:
        found = checks()["public access"]
    finally:
        s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=settings)
    assert found["health"] == Health.FAIL
    assert "RestrictPublicBuckets" in found["says"]
    assert f"put-public-access-block --bucket {BUCKET}" in found["fix"]


def test_the_check_of_the_bucket_leaves_nothing(cloud: EmulatedCloud) -> None:
    assert checks()["bucket"]["health"] == Health.OK
    assert client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", []) == []


def test_a_quota_of_nothing_is_told_with_the_command(cloud: EmulatedCloud) -> None:
    for quota in QUOTAS:
        cloud.quotas.set(quota.code, 0)
    try:
        found = checks()
    finally:
        for quota in QUOTAS:
            cloud.quotas.set(quota.code, 1024)
    for quota in QUOTAS:
        assert found[f"quota {quota.code}"]["health"] == Health.WARN
        assert f"--quota-code {quota.code}" in found[f"quota {quota.code}"]["fix"]


def test_a_quota_that_aws_does_not_tell_leaves_the_others_told(cloud: EmulatedCloud) -> None:
    hidden, *others = QUOTAS
    cloud.quotas.hide(hidden.code)
    try:
        found = checks()
    finally:
        cloud.quotas.set(hidden.code, 1024)
    unknown = found[f"quota {hidden.code}"]
    assert (unknown["health"], unknown["says"][:7]) == (Health.WARN, "unknown")
    assert f"--quota-code {hidden.code}" in unknown["fix"]
    assert {found[f"quota {quota.code}"]["health"] for quota in others} == {Health.OK}


def test_the_default_images_are_told(cloud: EmulatedCloud) -> None:
    told = checks()
    for name, parameter in (("GPU image", GPU_IMAGE), ("CPU image", CPU_IMAGE)):
        image = find_image(AwsClients(REGION), parameter)
        assert f"{image.id}, {image.name}; from {parameter}" in told[name]["says"]


def test_an_image_that_is_missing_does_not_hide_the_other(cloud: EmulatedCloud) -> None:
    cloud.fail("GetParameter", "ParameterNotFound", times=1)
    told = checks()
    assert (told["GPU image"]["health"], told["CPU image"]["health"]) == (Health.FAIL, Health.OK)


def test_a_missing_permission_is_named(cloud: EmulatedCloud) -> None:
    cloud.fail("CreateFleet", "UnauthorizedOperation")
    found = checks()["permission ec2:CreateFleet"]
    assert found["health"] == Health.FAIL
    assert "ec2:CreateFleet" in found["fix"]
    assert "starling-user-us-east-1" in found["fix"]


def test_bad_credentials_end_the_examination(cloud: EmulatedCloud) -> None:
    cloud.fail("GetCallerIdentity", "InvalidClientTokenId")
    found = checks()
    assert found["credentials"]["health"] == Health.FAIL
    assert "everything else" in found


def test_a_session_says_how_long_it_lasts(
    cloud: EmulatedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As SSO and `credential_process` give them: with an end."""
    keys = {
        "Version": 1,
        "AccessKeyId": "AKIAEMULATEDCLOUD000",
        "SecretAccessKey": "emulated",
        "SessionToken": "t",
        "Expiration": datetime.fromtimestamp(datetime.now(UTC).timestamp() + 1800, UTC).isoformat(),
    }
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'keys.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = checks()["validity"]
    assert found["health"] == Health.WARN
    assert "0.5 h" in found["says"]
    assert "log in again" in found["fix"]


@pytest.mark.parametrize(
    ("skew", "health"), [(0.0, Health.OK), (-60.0, Health.WARN), (60.0, Health.WARN), (400.0, Health.FAIL)]
)
def test_the_clock_is_compared_with_that_of_aws(skew: float, health: Health, cloud: EmulatedCloud) -> None:
    clients = AwsClients(REGION, clock=FakeClock(datetime.now(UTC).timestamp() + skew))
    (finding,) = check_clock(clients)
    assert finding.health is health
    assert ("ahead" in finding.says) is (skew > 0)


def test_a_region_that_is_not_enabled(cloud: EmulatedCloud) -> None:
    found = checks("--region", "moon-east-1")
    assert any(each["health"] == Health.FAIL for each in found.values())


def test_for_people_there_is_a_line_for_each_check(cloud: EmulatedCloud) -> None:
    lines = doctor("--stack", "lab").stdout.splitlines()
    assert any(line.startswith("ok    credentials: arn:aws:") for line in lines)
    assert any(line.startswith("FAIL  stack: ") for line in lines)
    assert lines[-1].startswith("1 to be put right")
