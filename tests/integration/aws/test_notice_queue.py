"""Several controllers and one queue of EC2's events."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from starling.infra.clock import FakeClock
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.notices import ENDS_KEPT, KEPT, NoticeQueue
from starling.infra.records import NoticeKind
from starling.infra.region.cloud import EmulatedCloud
from tests.support.account import lead_to

INTERRUPTION = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"


@pytest.fixture(scope="module")
def served() -> Iterator[EmulatedCloud]:
    with EmulatedCloud() as cloud:
        yield cloud


@pytest.fixture
def clients(served: EmulatedCloud, monkeypatch: pytest.MonkeyPatch) -> AwsClients:
    lead_to(served, monkeypatch)
    served.heal()
    return AwsClients("us-east-1")


@pytest.fixture
def url(clients: AwsClients) -> Iterator[str]:
    url = clients.sqs.create_queue(QueueName="events")["QueueUrl"]
    yield url
    clients.sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(float(round(time.time())))


def looker(clients: AwsClients, url: str, clock: FakeClock) -> NoticeQueue:
    return NoticeQueue(clients, url, clock=clock, hidden=0)


def tell(clients: AwsClients, url: str, clock: FakeClock, kind: str, instance: str, **detail: Any) -> None:
    at = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"detail-type": kind, "time": at, "detail": {"instance-id": instance, **detail}}
    clients.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event))


def waiting(clients: AwsClients, url: str) -> int:
    answer = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def test_each_controller_hears_of_its_own_machines_whoever_looks_first(
    clients: AwsClients, url: str, clock: FakeClock
) -> None:
    ada, bob = looker(clients, url, clock), looker(clients, url, clock)
    tell(clients, url, clock, INTERRUPTION, "i-ada")
    tell(clients, url, clock, REBALANCE, "i-bob")
    ada.look({"i-ada"})
    bob.look({"i-bob"})
    assert {key: notice.kind for key, notice in ada.notices.items()} == {"i-ada": NoticeKind.INTERRUPTION}
    assert {key: notice.kind for key, notice in bob.notices.items()} == {"i-bob": NoticeKind.REBALANCE}


def test_a_controller_that_is_restarted_hears_it_again(clients: AwsClients, url: str, clock: FakeClock) -> None:
    tell(clients, url, clock, INTERRUPTION, "i-1")
    before, after = looker(clients, url, clock), looker(clients, url, clock)
    before.look({"i-1"})
    clock.advance(30)
    after.look({"i-1"})
    assert before.notices["i-1"].id == after.notices["i-1"].id


def test_what_is_too_old_for_anybody_is_deleted_by_whoever_finds_it(
    clients: AwsClients, url: str, clock: FakeClock
) -> None:
    for number in range(4):
        tell(clients, url, clock, INTERRUPTION, f"i-{number}")
    clients.sqs.send_message(QueueUrl=url, MessageBody="not an event")
    clock.advance(KEPT)
    tell(clients, url, clock, INTERRUPTION, "i-new")
    looker(clients, url, clock).look(set())
    assert waiting(clients, url) == 5, "what is just old enough to be kept is kept"
    clock.advance(1)
    looker(clients, url, clock).look(set())
    assert waiting(clients, url) == 1


def test_a_machine_s_end_is_heard_with_its_time(clients: AwsClients, url: str, clock: FakeClock) -> None:
    ended = clock.now()
    tell(clients, url, clock, "EC2 Instance State-change Notification", "i-1", state="terminated")
    clock.advance(40)
    queue = looker(clients, url, clock)
    queue.look({"i-1"})
    assert queue.ended == {"i-1": ended}
    assert waiting(clients, url) == 1
    clock.advance(ENDS_KEPT)
    queue.look({"i-1"})
    assert waiting(clients, url) == 0


def test_an_empty_queue_is_one_call(clients: AwsClients, url: str, clock: FakeClock) -> None:
    clients.calls.clear()
    looker(clients, url, clock).look({"i-1"})
    assert clients.calls == {"ReceiveMessage": 1}


def test_a_queue_that_gives_few_at_a_time_is_read_to_its_end(clients: AwsClients, url: str, clock: FakeClock) -> None:
    """SQS may answer with fewer than it was asked for, however many wait."""
    few = {"MaxNumberOfMessages": 3}
    clients.sqs.meta.events.register(
        "provide-client-params.sqs.ReceiveMessage", lambda params, **_: {**params, **few}, unique_id="few"
    )
    for number in range(7):
        tell(clients, url, clock, INTERRUPTION, f"i-{number}")
    mine = {f"i-{number}" for number in range(7)}
    queue = NoticeQueue(clients, url, clock=clock)
    clients.calls.clear()
    queue.look(mine)
    assert queue.notices.keys() == mine
    assert clients.calls == {"ReceiveMessage": 4}, "3, 3, 1, and none"


def test_a_queue_that_cannot_be_read_is_reported_once_and_stops_nothing(
    clients: AwsClients,
    served: EmulatedCloud,
    url: str,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = looker(clients, url, clock)
    served.fail("ReceiveMessage", "AccessDeniedException", times=2)
    tell(clients, url, clock, INTERRUPTION, "i-1")
    with caplog.at_level(logging.WARNING, "starling"):
        queue.look({"i-1"})
        queue.look({"i-1"})
    assert [record.getMessage() for record in caplog.records if "sqs:ReceiveMessage" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    queue.look({"i-1"})
    assert "i-1" in queue.notices
