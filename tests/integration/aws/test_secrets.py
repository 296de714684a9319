"""No long-lived secret anywhere: not in the template, user data, launch templates, tags, events, or on the screen."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from starling.cli.app import app
from starling.infra.clock import FakeClock
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.provider import AwsProvider
from starling.infra.providers.aws.stack import read_stack, store_uri
from starling.infra.records import Market, NodeIntent, Offer
from starling.infra.store import open_store
from starling.orchestrator.runs import create_run
from tests.support.account import REGION, client, fresh_account
from tests.support.specs import spec

KEY_ID, SECRET, TOKEN = "AKIASECRETSECRET0001", "wJalrXUtnFEMIlongLivedSecretKeyOfTheOwner", "FwoGZXIvYXdzEsessiontoken"
ACCESS_KEY = re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
OFFER = Offer(provider="aws", instance_type="m5.large", zone="us-east-1a", market=Market.SPOT, price_per_hour=0.04)


def assert_harmless(where: str, text: str) -> None:
    for secret in (KEY_ID, SECRET, TOKEN):
        assert secret not in text, f"{where} holds {secret}"
    assert not ACCESS_KEY.search(text), where
    assert not PRIVATE_KEY.search(text), where


def test_nothing_that_is_kept_or_shown_holds_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """STEPS: with credentials that would be recognised: set up, create a run, launch its node; then look everywhere."""
    caplog.set_level("DEBUG", logger="starling")
    monkeypatch.setenv("STARLING_HOME", str(tmp_path))
    with fresh_account(monkeypatch) as cloud, monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        shown = "".join(CliRunner().invoke(app, words).output for words in (["aws", "setup"], ["doctor"], ["gc"]))
        assert "up to date" in shown
        store = open_store(store_uri(read_stack(AwsClients(REGION), "starling").bucket, REGION))
        create_run(store, spec(provider={"name": "aws", "region": REGION}), name="trial")
        intent = NodeIntent(
            node="trial.0.0",
            run="trial",
            incarnation=0,
            slot=0,
            generation=0,
            offer=OFFER,
            wanted_at=0,
            authorised_until=None,
        )
        section = {"name": "aws", "region": REGION, "stack": "starling", "disk": 100}
        AwsProvider(section, store.uri, clock=FakeClock(time.time())).launch(intent, store.uri)

        assert_harmless("the screen", shown)
        assert_harmless("the log", caplog.text)
        (machine,) = cloud.instances()
        assert machine.user_data
        assert_harmless("user data", machine.user_data)
        assert_harmless("tags", json.dumps(machine.tags))
        assert_harmless(
            "the template", json.dumps(client("cloudformation").get_template(StackName="starling")["TemplateBody"])
        )
        ec2 = client("ec2")
        templates = ec2.describe_launch_templates()["LaunchTemplates"]
        assert len(templates) == 2
        for template in templates:
            versions = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])
            assert_harmless(template["LaunchTemplateName"], json.dumps(versions["LaunchTemplateVersions"], default=str))
        for info in store.list():
            if not info.key.endswith(".tar.gz"):
                assert_harmless(info.key, store.get(info.key).data.decode())
        assert {info.key.split("/")[0] for info in store.list()} >= {"runs", "code"}
        assert "KeyName" not in json.dumps(ec2.describe_instances(), default=str)
