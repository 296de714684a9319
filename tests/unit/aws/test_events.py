"""What EC2's events say, as they come out of the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from starling.infra.providers.aws.notices import happening
from starling.infra.records import Notice, NoticeKind, more_urgent

NOW = 1_791_388_830.0
SENT = 1_791_388_800.0  # 2026-10-07T16:00:00Z


def event(kind: str, **detail: Any) -> str:
    """As in the user guide."""
    return json.dumps(
        {
            "version": "0",
            "id": "12345678-1234-1234-1234-123456789012",
            "detail-type": kind,
            "source": "aws.ec2",
            "account": "123456789012",
            "time": "2026-10-07T16:00:00Z",
            "region": "us-east-1",
            "resources": ["arn:aws:ec2:us-east-1a:instance/i-1"],
            "detail": {"instance-id": "i-1", **detail},
        }
    )


def notice_of(kind: str, now: float = NOW) -> Notice:
    found = happening(event(kind), now)
    assert found is not None
    assert found.notice is not None
    return found.notice


INTERRUPTION = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"
STATE = "EC2 Instance State-change Notification"


def test_a_warning_takes_effect_two_minutes_after_it_was_sent() -> None:
    notice = notice_of(INTERRUPTION)
    assert (notice.kind, notice.seen_at, notice.takes_effect_at) == (NoticeKind.INTERRUPTION, NOW, SENT + 120)


def test_a_recommendation_has_no_time() -> None:
    notice = notice_of(REBALANCE)
    assert (notice.kind, notice.takes_effect_at) == (NoticeKind.REBALANCE, None)


def test_reading_it_again_is_the_same_notice() -> None:
    assert notice_of(INTERRUPTION).id == notice_of(INTERRUPTION, NOW + 60).id
    assert notice_of(INTERRUPTION).id != notice_of(REBALANCE).id


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_an_end_is_told_with_its_time(state: str) -> None:
    found = happening(event(STATE, state=state), NOW)
    assert found is not None
    assert (found.instance_id, found.at, found.notice) == ("i-1", SENT, None)


@pytest.mark.parametrize(
    "body", ["", "no json", "[]", "{}", event("EC2 Something Else"), event(STATE, state="running"), '{"detail": null}']
)
def test_what_is_no_such_event_is_nothing(body: str) -> None:
    assert happening(body, NOW) is None


def test_a_warning_is_never_played_down() -> None:
    warning, hint = notice_of(INTERRUPTION), notice_of(REBALANCE)
    assert more_urgent(None, hint) is hint
    assert more_urgent(hint, warning) is warning
    assert more_urgent(warning, hint) is warning
