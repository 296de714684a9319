from __future__ import annotations

import logging

import pytest

from starling.infra.errors import ImdsUnavailable
from starling.infra.imds.notices import NoticeWatch, poll
from starling.infra.records import NoticeKind

ACTION = "meta-data/spot/instance-action"
REBALANCE = "meta-data/events/recommendations/rebalance"
AT_0822 = 1_505_722_920.0


class Metadata:
    """Documents by path; None in place of all of them means that the service is down."""

    def __init__(self, **documents: str) -> None:
        self.documents: dict[str, str] | None = documents

    def get(self, path: str) -> str | None:
        if self.documents is None:
            raise ImdsUnavailable("down")
        return self.documents.get(path)


def served(action: str | None = None, rebalance: str | None = None) -> Metadata:
    documents = {ACTION: action, REBALANCE: rebalance}
    return Metadata(**{path: text for path, text in documents.items() if text is not None})


INTERRUPTION = '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}'
RECOMMENDATION = '{"noticeTime": "2017-09-18T08:20:00Z"}'


def test_no_notice() -> None:
    assert poll(served(), 1.0) is None


def test_an_interruption_tells_when_it_takes_effect() -> None:
    notice = poll(served(INTERRUPTION), 5.0)
    assert notice is not None
    assert (notice.kind, notice.seen_at, notice.takes_effect_at) == (NoticeKind.INTERRUPTION, 5.0, AT_0822)


def test_a_rebalance_recommendation_does_not() -> None:
    notice = poll(served(rebalance=RECOMMENDATION), 5.0)
    assert notice is not None
    assert (notice.kind, notice.takes_effect_at) == (NoticeKind.REBALANCE, None)


def test_the_interruption_comes_before_the_recommendation() -> None:
    notice = poll(served(INTERRUPTION, RECOMMENDATION), 5.0)
    assert notice is not None
    assert notice.kind is NoticeKind.INTERRUPTION


def test_the_same_notice_has_the_same_id_and_another_one_another() -> None:
    first, again = poll(served(INTERRUPTION), 1.0), poll(served(INTERRUPTION), 2.0)
    other = poll(served(INTERRUPTION.replace("08:22", "08:23")), 1.0)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.id == again.id != other.id


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}", '{"action": "terminate", "time": "soon"}', '{"time": 5}'])
def test_nonsense_is_an_error(answer: str) -> None:
    with pytest.raises(ImdsUnavailable, match="cannot be read"):
        poll(served(answer), 1.0)


def test_a_watch_keeps_the_first_sight_of_a_notice_also_while_the_service_is_down() -> None:
    metadata = served(INTERRUPTION)
    watch = NoticeWatch(metadata)
    first = watch.look(1.0)
    assert watch.look(2.0) == first
    metadata.documents = None
    assert watch.look(3.0) == first


def test_a_watch_goes_from_recommendation_to_interruption_and_never_back() -> None:
    metadata = served(rebalance=RECOMMENDATION)
    watch = NoticeWatch(metadata)
    watch.look(1.0)
    metadata.documents = {ACTION: INTERRUPTION, REBALANCE: RECOMMENDATION}
    assert (seen := watch.look(2.0)) is not None
    assert seen.kind is NoticeKind.INTERRUPTION
    metadata.documents = {REBALANCE: RECOMMENDATION}
    assert watch.look(3.0) == seen


def test_a_failure_that_lasts_is_reported_but_not_with_every_poll(caplog: pytest.LogCaptureFixture) -> None:
    metadata = served()
    metadata.documents = None
    watch = NoticeWatch(metadata)
    for now in range(2):
        watch.look(float(now))
    assert not caplog.records
    for now in range(22):
        watch.look(float(now))
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4  # after 3, 6, 12 and 24
    caplog.set_level(logging.INFO)
    metadata.documents = {}
    watch.look(99.0)
    assert "again" in caplog.records[-1].getMessage()
