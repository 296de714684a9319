"""`starling offers` and `starling prices` against an emulated region."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.providers.aws.on_demand_prices import shipped_table
from starling.infra.region.cloud import EmulatedCloud
from tests.support.command_line import Starling, command_line
from tests.support.priced_cloud import as_new, priced_cloud

DAY = 86_400.0


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with priced_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: EmulatedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulatedCloud:
    as_new(shared_cloud, tmp_path, monkeypatch)
    return shared_cloud


@pytest.fixture
def starling(cloud: EmulatedCloud, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Starling:
    """Runs the command line in this process."""
    return command_line(monkeypatch, capfd)


def test_offers_for_people(starling: Starling, cloud: EmulatedCloud) -> None:
    cloud.prices.set_spot("g5.xlarge", "us-east-1b", 0.1006, time.time() - 60)
    told = starling("offers", "--gpus", "1")
    assert told.code == 0
    head, *rows = told.rows
    assert head[:2] == ["type", "zone"]
    assert "spot now  mean 30 d  max 30 d  on demand  saving  score" in told.out.splitlines()[0]
    assert rows[0][:2] == ["g5.xlarge", "us-east-1b"]
    assert rows[0][-4:] == ["$1.0060", "90", "%", "9"]
    assert len(rows) == 6
    assert told.err == ""


def test_offers_for_machines(starling: Starling) -> None:
    document = starling("offers", "--type", "g5.xlarge", "--regions", "us-east-1,us-west-2", "--json").document
    assert {offer["zone"][:-1] for offer in document["offers"]} == {"us-east-1", "us-west-2"}
    assert {offer["instance_type"] for offer in document["offers"]} == {"g5.xlarge"}
    prices = [offer["price"] for offer in document["offers"]]
    assert prices == sorted(prices)
    best = document["offers"][0]
    assert (best["gpu"], best["gpus"], best["vcpus"], best["memory"]) == ("A10G", 1, 4, 16.0)
    assert best["on_demand"] == {"price": 1.006, "table_of": None}
    assert best["saving_percent"] == pytest.approx(100 * (1 - best["price"] / 1.006))
    assert best["mean"] <= best["max"]
    assert document["notes"] == ["placement scores are always low for fewer than 3 instance types"]


def test_offers_mean_and_maximum_are_of_thirty_days(starling: Starling, cloud: EmulatedCloud) -> None:
    for ago, price in ((40, 5.0), (30.5, 1.0), (15, 2.0)):
        cloud.prices.set_spot("g5.xlarge", "us-east-1a", price, time.time() - ago * DAY)
    offers = starling("offers", "--type", "g5.xlarge", "--json").document["offers"]
    (offer,) = [offer for offer in offers if offer["zone"] == "us-east-1a"]
    assert (offer["price"], offer["max"]) == (2.0, 2.0)
    assert offer["mean"] == pytest.approx(1.5, abs=1e-3)


def test_all_regions_are_those_of_the_account(starling: Starling, cloud: EmulatedCloud) -> None:
    document = starling("offers", "--type", "g6.xlarge", "--regions", "all", "--json").document
    assert len({offer["zone"][:-1] for offer in document["offers"]}) > 8
    assert cloud.calls["DescribeRegions"] == 1
    assert len(document["notes"]) == 1, "what many regions say is said once"


def test_on_demand_offers_have_one_line_a_region(starling: Starling) -> None:
    told = starling("offers", "--gpus", "1", "--market", "on-demand", "--gpu-memory", "24", "--type", "g5.xlarge")
    assert told.code == 0
    assert told.rows[1:] == [
        ["g5.xlarge", "us-east-1{a,b,c,d,f}", "1", "x", "A10G", "22", "GiB", "4", "16", "$1.0060"],
    ]


def test_prices_of_the_table_are_marked_with_its_date(starling: Starling, cloud: EmulatedCloud) -> None:
    cloud.fail("GetProducts", "AccessDeniedException", message="not authorized to perform: pricing:GetProducts")
    told = starling("offers", "--type", "g5.xlarge")
    assert "$1.0060*" in told.out
    assert shipped_table().date in told.err
    assert "pricing:GetProducts" in told.err
    document = starling("prices", "g5.xlarge", "--json").document
    assert document["on_demand"] == {"us-east-1": {"price": 1.006, "table_of": shipped_table().date}}


def test_prices_for_people(starling: Starling, cloud: EmulatedCloud) -> None:
    for ago, price in ((30.5, 0.3), (15, 0.6)):
        cloud.prices.set_spot("g5.xlarge", "us-east-1a", price, time.time() - ago * DAY)
    told = starling("prices", "g5.xlarge", "--days", "30")
    assert told.code == 0
    title, head, first, *_ = told.out.splitlines()
    assert title == "g5.xlarge, spot prices of 30 days; on demand $1.0060 in us-east-1"
    assert head.endswith("▁ $0.3000 to █ $0.6000")
    assert first.split() == ["us-east-1a", "$0.6000", "$0.4500", "$0.6000", "1", "▁" * 20 + "█" * 20]


def test_prices_for_machines(starling: Starling, cloud: EmulatedCloud) -> None:
    document = starling("prices", "g5.xlarge", "--days", "90", "--json").document
    assert [zone["zone"] for zone in document["zones"]] == ["us-east-1a", "us-east-1b"]
    zone = document["zones"][0]
    assert zone["prices"][0]["at"] == zone["from"] == pytest.approx(zone["to"] - 90 * DAY)
    assert zone["changes"] == len(zone["prices"]) - 1 > 300
    assert zone["min"] <= zone["mean"] <= zone["max"]
    assert cloud.calls["DescribeSpotPriceHistory"] == 1


def test_a_type_without_spot_prices_says_so(starling: Starling) -> None:
    told = starling("prices", "p4d.24xlarge")
    assert (told.code, len(told.out.splitlines())) == (0, 1)
    assert "us-east-1 has no spot price of p4d.24xlarge" in told.err


def test_the_plot_is_a_picture(starling: Starling, tmp_path: Path) -> None:
    picture = tmp_path / "prices.png"
    told = starling("prices", "g5.xlarge", "--plot", str(picture), "--json")
    assert told.document["plot"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    drawn = tmp_path / "prices.svg"
    assert starling("prices", "g5.xlarge", "--plot", str(drawn)).code == 0
    for label in ("us-east-1a", "us-east-1b", "on demand, us-east-1", "US dollars an hour", "$0.40"):
        assert f"<!-- {label} -->" in drawn.read_text().replace("\\$", "$")


def test_a_plot_without_matplotlib_says_how_to_get_it(
    starling: Starling, cloud: EmulatedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = starling("prices", "g5.xlarge", "--plot", str(tmp_path / "prices.png"))
    assert told.code == 2
    assert 'pip install "starling[plot]"' in told.err
    assert not cloud.calls, "found out before AWS is asked"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prices", "g5.xlarge", "--days", "91"], "EC2 keeps spot prices for 90 days"),
        (["prices", "g5.xlarge", "--days", "0"], "EC2 keeps spot prices for 90 days"),
        (["prices", "g5.xlage"], "us-east-1 has no instance type g5.xlage; did you mean g5.xlarge?"),
        (["prices", "g5.xlarge", "--regions", "us-est-1"], "AWS has no region us-est-1; did you mean us-"),
        (["prices", "g5.xlarge", "--plot", "prices.bmp"], "use a file name that ends in .png, .svg, .pdf"),
        (["prices", "g5.xlarge", "--plot", "nowhere/prices.png"], "there is no folder nowhere"),
        (["offers", "--type", "nonsense"], "us-east-1 has no instance type nonsense"),
        (["offers", "--gpus", "3"], "us-east-1 has no instance type with 3 GPUs"),
        (["offers", "--gpus", "4", "--type", "g5.xlarge"], "g5.xlarge has 1 GPU, too few"),
        (["offers", "--regions", ","], "--regions: name regions"),
        (["offers", "--market", "futures"], "--market futures: use spot or on-demand"),
    ],
)
def test_bad_input_is_one_clear_message(starling: Starling, arguments: list[str], said: str) -> None:
    for more in ([], ["--json"]):
        told = starling(*arguments, *more)
        assert (told.code, told.out) == (2, "")
        assert said in told.err
        assert len(told.err.splitlines()) == 1


def test_without_permission_the_missing_one_is_named(starling: Starling, cloud: EmulatedCloud) -> None:
    cloud.fail("DescribeSpotPriceHistory", "UnauthorizedOperation")
    told = starling("prices", "g5.xlarge")
    assert told.code == 1
    assert "ec2:DescribeSpotPriceHistory" in told.err
    assert "Traceback" not in told.err


def test_a_profile_that_does_not_exist_is_one_message(starling: Starling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    told = starling("offers")
    assert (told.code, len(told.err.splitlines())) == (1, 1)
    assert "nobody" in told.err
