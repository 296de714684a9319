"""Offers that were refused rest, longer each time."""

from __future__ import annotations

from starling.infra.errors import NoCapacity, QuotaReached, Refusal
from starling.infra.records import Offer
from starling.orchestrator.rests import LONGEST_SECONDS, Rests
from tests.support.offers import spot

A, B = spot(zone="a"), spot(zone="b")


def refusal(offer: Offer, kind: type[NoCapacity] = NoCapacity) -> Refusal:
    return Refusal(
        instance_type=offer.instance_type, zone=offer.zone, market=offer.market.value, kind=kind, message="none left"
    )


def rest_seconds(rests: Rests, offer: Offer, now: float, *refusals: Refusal) -> float:
    rests.refused([offer], refusals, now, now)
    return rests.at(now)[offer.key].until - now


def test_a_rest_doubles_up_to_a_quarter_of_an_hour() -> None:
    rests, now, seen = Rests(), 0.0, []
    for _ in range(7):
        seen.append(rest_seconds(rests, A, now))
        now += seen[-1]
    assert seen == [30, 60, 120, 240, 480, 900, 900]


def test_a_quota_rests_longer() -> None:
    assert rest_seconds(Rests(), A, 0.0, refusal(A, QuotaReached)) == 300


def test_only_what_was_refused_rests() -> None:
    rests = Rests()
    rests.refused([A, B], [refusal(A)], 0.0, 0.0)
    assert set(rests.at(1.0)) == {A.key}
    assert rests.at(1.0)[A.key].refusal.message == "none left"
    assert rests.at(30.0) == {}


def test_without_a_word_which_or_with_a_strange_one_all_candidates_rest() -> None:
    for said in ([], [refusal(spot(zone="elsewhere"))]):
        rests = Rests()
        rests.refused([A, B], said, 0.0, 0.0)
        assert set(rests.at(1.0)) == {A.key, B.key}


def test_requests_under_way_together_count_once() -> None:
    rests = Rests()
    for node in range(5):
        rests.refused([A], [], 10.0, 10.0 + node)
    assert rests.at(20.0)[A.key].until == 40.0


def test_a_shortage_long_ago_is_forgotten() -> None:
    rests = Rests()
    rest_seconds(rests, A, 0.0)
    assert rest_seconds(rests, A, 31.0 + LONGEST_SECONDS) == 30


def test_what_can_be_had_again_begins_anew_but_not_within_a_rest() -> None:
    rests = Rests()
    rest_seconds(rests, A, 0.0)
    rests.bought(A, 1.0)  # the last one there was
    assert A.key in rests.at(1.0)
    rests.bought(A, 31.0)
    assert rest_seconds(rests, A, 32.0) == 30
