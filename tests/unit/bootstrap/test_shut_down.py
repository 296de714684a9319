"""What stage 1 makes of the metadata service's word that the machine is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from starling.infra.bootstrap.install import interruption_notice
from starling.infra.imds.client import ImdsClient
from starling.infra.imds.notices import poll
from starling.infra.imds.server import Identity, ImdsServer
from starling.infra.records import Market, Notice

IDENTITY = Identity(
    instance_id="i-1",
    instance_type="c7i.large",
    zone="us-east-1a",
    region="us-east-1",
    address="127.0.0.1",
    market=Market.SPOT,
    launched_at=0.0,
)


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImdsServer]:
    server = ImdsServer(IDENTITY)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
    yield server
    server.close()


def test_it_is_the_notice_that_an_agent_would_have_seen(imds: ImdsServer) -> None:
    imds.post_interruption(time.time() + 90)
    seen = Notice.model_validate(interruption_notice())
    of_agent = poll(ImdsClient(imds.endpoint), seen.seen_at)
    assert seen == of_agent


def test_a_machine_that_is_only_shut_down_has_none(imds: ImdsServer) -> None:
    assert interruption_notice() is None


def test_without_a_metadata_service_there_is_none(imds: ImdsServer) -> None:
    imds.close()
    assert interruption_notice() is None


@pytest.mark.parametrize("answer", ["", "no json", "[]", "{}", '{"time": 3}', '{"time": "soon"}'])
def test_an_answer_that_makes_no_sense_is_none(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starling.infra.bootstrap.install.metadata", lambda _: answer)
    assert interruption_notice() is None
