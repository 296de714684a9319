"""The market against an emulated region that tells prices as EC2 does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.clock import FakeClock
from starling.infra.errors import CredentialsExpired, Misconfigured, NotAuthorised, Throttled
from starling.infra.providers.aws.choice import AwsChoice
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.market import Market
from starling.infra.providers.aws.on_demand_prices import shipped_table
from starling.infra.providers.aws.spot_prices import DAY, read_history
from starling.infra.records import Market as MarketKind
from starling.infra.records import Offer
from starling.infra.region.cloud import EmulatedCloud
from tests.support.priced_cloud import TYPES, as_new, priced_cloud

SPOT, ON_DEMAND = MarketKind.SPOT, MarketKind.ON_DEMAND
LOOK = {
    "DescribeAvailabilityZones": 1,
    "DescribeInstanceTypes": 1,
    "DescribeInstanceTypeOfferings": 1,
    "DescribeSpotPriceHistory": 1,
    "GetProducts": 1,
    "GetSpotPlacementScores": 1,
}


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with priced_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: EmulatedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulatedCloud:
    as_new(shared_cloud, tmp_path, monkeypatch)
    return shared_cloud


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time.time())


def market(clock: FakeClock, region: str = "us-east-1") -> Market:
    return Market(AwsClients(region, clock=clock), clock)


def keys(offers: list[Offer]) -> list[tuple[str, str]]:
    return [(offer.instance_type, offer.zone) for offer in offers]


def test_offers_are_what_serves_cheapest_first(cloud: EmulatedCloud, clock: FakeClock) -> None:
    offers = market(clock).offers(AwsChoice(), 1, SPOT)
    assert {offer.instance_type for offer in offers} == {"g4dn.xlarge", "g5.xlarge", "g6.xlarge"}
    assert [offer.price_per_hour for offer in offers] == sorted(offer.price_per_hour for offer in offers)
    best = next(offer for offer in offers if offer.instance_type == "g5.xlarge")
    assert (best.provider, best.zone, best.market, best.gpus, best.device) == ("aws", "us-east-1a", SPOT, 1, "A10G")
    assert best.price_per_hour == cloud.prices.spot("g5.xlarge", "us-east-1a", clock.now())
    assert best.on_demand_price == 1.006
    assert 22 < best.gpu_memory < 24


def test_zones_without_a_price_offer_nothing(cloud: EmulatedCloud, clock: FakeClock) -> None:
    assert {zone for _, zone in keys(market(clock).offers(AwsChoice(), 1, SPOT))} == {"us-east-1a", "us-east-1b"}


def test_only_the_chosen_zones_and_types(cloud: EmulatedCloud, clock: FakeClock) -> None:
    choice = AwsChoice(zones=("us-east-1b",), instance_types=("g5.xlarge", "g5.12xlarge"))
    assert keys(market(clock).offers(choice, 1, SPOT)) == [("g5.xlarge", "us-east-1b"), ("g5.12xlarge", "us-east-1b")]
    with pytest.raises(Misconfigured, match=r"provider\.zones: us-east-1 has no zone us-east-1z; it has us-east-1a"):
        market(clock).offers(AwsChoice(zones=("us-east-1z",)), 1, SPOT)


def test_at_one_price_the_likelier_zone_comes_first(cloud: EmulatedCloud, clock: FakeClock) -> None:
    for zone in "ab":
        cloud.prices.set_spot("g5.xlarge", f"us-east-1{zone}", 0.5, clock.now() - 60)
    offers = market(clock).offers(AwsChoice(instance_types=("g5.xlarge",)), 1, SPOT)
    assert keys(offers) == [("g5.xlarge", "us-east-1b"), ("g5.xlarge", "us-east-1a")]


def test_max_price_is_a_limit(cloud: EmulatedCloud, clock: FakeClock) -> None:
    cloud.prices.set_spot("g5.xlarge", "us-east-1a", 0.25, clock.now() - 60)
    offers = market(clock).offers(AwsChoice(instance_types=("g5.xlarge",), max_price=0.25), 1, SPOT)
    assert keys(offers) == [("g5.xlarge", "us-east-1a")]


def test_cpu_nodes_without_a_choice(cloud: EmulatedCloud, clock: FakeClock) -> None:
    offers = market(clock).offers(AwsChoice(), 0, SPOT)
    assert {(offer.instance_type, offer.device, offer.gpus) for offer in offers} == {
        ("c7i.xlarge", "c7i", 0),
        ("c7i.2xlarge", "c7i", 0),
        ("m7i.xlarge", "m7i", 0),
    }


def test_on_demand_offers_hold_in_all_zones(cloud: EmulatedCloud, clock: FakeClock) -> None:
    looked = market(clock)
    offers = looked.offers(AwsChoice(instance_types=("g5.xlarge",)), 1, ON_DEMAND)
    assert {offer.price_per_hour for offer in offers} == {1.006}
    assert len({offer.zone for offer in offers}) > 2, "zones without a spot price sell on demand"
    assert "DescribeSpotPriceHistory" not in cloud.calls
    assert looked.notes == []


def test_without_an_on_demand_price_there_is_no_offer(cloud: EmulatedCloud, clock: FakeClock) -> None:
    looked = market(clock)
    assert looked.offers(AwsChoice(instance_types=("g7.2xlarge",)), 1, ON_DEMAND) == []
    assert looked.notes == ["no on-demand price is known of g7.2xlarge: not offered"]


def test_what_aws_does_not_sell_on_spot_is_said(cloud: EmulatedCloud, clock: FakeClock) -> None:
    with pytest.raises(Misconfigured, match=r"AWS does not sell hpc6a\.48xlarge on the spot market"):
        market(clock).offers(AwsChoice(instance_types=("hpc6a.48xlarge",)), 0, SPOT)


def test_answers_are_kept_for_as_long_as_they_are_good(cloud: EmulatedCloud, clock: FakeClock) -> None:
    looked = market(clock)
    first = looked.offers(AwsChoice(), 1, SPOT)
    assert cloud.calls == LOOK
    clock.advance(299)
    assert looked.offers(AwsChoice(), 1, SPOT) == first
    assert cloud.calls == LOOK
    cloud.prices.set_spot("g6.xlarge", "us-east-1a", 0.01, time.time())
    clock.advance(2)
    assert looked.offers(AwsChoice(), 1, SPOT)[0].price_per_hour == 0.01
    assert cloud.calls == {**LOOK, "DescribeSpotPriceHistory": 2}
    clock.advance(3600)
    looked.offers(AwsChoice(), 1, SPOT)
    assert cloud.calls == {action: 2 + (action == "DescribeSpotPriceHistory") for action in LOOK}


def test_both_markets_share_what_they_have_in_common(cloud: EmulatedCloud, clock: FakeClock) -> None:
    looked = market(clock)
    looked.offers(AwsChoice(), 1, SPOT)
    looked.offers(AwsChoice(), 1, ON_DEMAND)
    assert cloud.calls == LOOK


def test_a_history_comes_in_pages(cloud: EmulatedCloud, clock: FakeClock) -> None:
    told = read_history(AwsClients("us-east-1"), sorted(TYPES), days=90, now=clock.now())
    assert cloud.calls["DescribeSpotPriceHistory"] == 6, "5 thousand entries, a thousand a page"
    assert len(told) == 2 * len(TYPES)
    for (name, zone), history in told.items():
        expected = cloud.prices.history(name, zone, clock.now() - 90 * DAY, clock.now())
        assert history.now == expected[-1].price
        assert history.highest == max(change.price for change in expected)
        assert history.start == history.steps[0].at


def test_without_the_pricing_api_the_dated_table_serves(cloud: EmulatedCloud, clock: FakeClock) -> None:
    cloud.fail("GetProducts", "AccessDeniedException", message="not authorized to perform: pricing:GetProducts")
    looked = market(clock)
    choice = AwsChoice(instance_types=("g5.xlarge",))
    (quote, *_) = looked.quotes(choice, 1, SPOT)
    assert quote.on_demand is not None
    assert (quote.on_demand.price, quote.on_demand.dated) == (1.006, shipped_table().date)
    looked.quotes(choice, 1, ON_DEMAND)
    (note,) = [note for note in looked.notes if "pricing:GetProducts" in note]
    assert f"prices marked * are from the table of {shipped_table().date}" in note
    assert cloud.calls["GetProducts"] == 1, "a refusal is kept as well"
    cloud.heal()
    clock.advance(301)
    (quote, *_) = looked.quotes(choice, 1, SPOT)
    assert quote.on_demand is not None
    assert quote.on_demand.dated is None, "but not for as long as an answer"


def test_the_table_serves_only_its_own_regions(cloud: EmulatedCloud, clock: FakeClock) -> None:
    cloud.fail("GetProducts", "InternalFailure")
    looked = market(clock, "us-west-2")
    offers = looked.offers(AwsChoice(region="us-west-2", instance_types=("g5.xlarge",)), 1, SPOT)
    assert {offer.on_demand_price for offer in offers} == {None}
    assert any(note.startswith("on-demand prices are not known: ") for note in looked.notes)


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "MaxConfigLimitExceeded", "InvalidParameterValue"])
def test_placement_scores_are_optional(cloud: EmulatedCloud, clock: FakeClock, code: str) -> None:
    cloud.fail("GetSpotPlacementScores", code, message="ec2:GetSpotPlacementScores")
    looked = market(clock)
    for _ in range(2):
        quotes = looked.quotes(AwsChoice(), 1, SPOT)
        clock.advance(301)
    assert {quote.score for quote in quotes} == {None}
    assert [note.partition(":")[0] for note in looked.notes] == ["no placement scores"], "said once"
    assert cloud.calls["GetSpotPlacementScores"] == 1


def test_scores_are_found_by_the_zones_ids(cloud: EmulatedCloud, clock: FakeClock) -> None:
    """EC2 tells ids (use1-az6), as names mean other zones in other accounts."""
    scores = {quote.zone: quote.score for quote in market(clock).quotes(AwsChoice(), 1, SPOT)}
    assert scores == {"us-east-1a": 3, "us-east-1b": 9}


def test_few_types_score_low_and_it_is_said(cloud: EmulatedCloud, clock: FakeClock) -> None:
    looked = market(clock)
    looked.quotes(AwsChoice(instance_types=("g5.xlarge",)), 1, SPOT)
    assert looked.notes == ["placement scores are always low for fewer than 3 instance types"]


def test_throttling_is_not_remembered(cloud: EmulatedCloud, clock: FakeClock) -> None:
    cloud.fail("DescribeSpotPriceHistory", "RequestLimitExceeded")
    looked = market(clock)
    with pytest.raises(Throttled):
        looked.offers(AwsChoice(), 1, SPOT)
    cloud.heal()
    assert looked.offers(AwsChoice(), 1, SPOT)


def test_a_missing_permission_for_prices_is_named(cloud: EmulatedCloud, clock: FakeClock) -> None:
    cloud.fail("DescribeSpotPriceHistory", "UnauthorizedOperation")
    with pytest.raises(NotAuthorised, match="DescribeSpotPriceHistory"):
        market(clock).offers(AwsChoice(), 1, SPOT)


@pytest.mark.parametrize("action", ["GetProducts", "GetSpotPlacementScores", "DescribeSpotPriceHistory"])
def test_expired_credentials_are_never_taken_for_missing_prices(
    cloud: EmulatedCloud, clock: FakeClock, action: str
) -> None:
    cloud.fail(action, "ExpiredTokenException" if action == "GetProducts" else "RequestExpired")
    with pytest.raises(CredentialsExpired):
        market(clock).offers(AwsChoice(), 1, SPOT)
