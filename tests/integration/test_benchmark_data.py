"""The benchmark of data: our readers run in it, its proxy is late and counts, and peers that fail are named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3.session
import pytest

from benchmarks.data_passes import KINDS, OURS, Field, Pass
from benchmarks.data_places import prepare_place
from benchmarks.data_report import report
from benchmarks.data_turns import ReaderFailed, ReaderProcess, closed_afterwards
from benchmarks.data_waiting import SMALL, measured
from benchmarks.slow_proxy import slow_proxy
from starling.infra.region.s3_server import S3Server, s3_server

IMAGES = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def test_our_readers_take_their_turns_without_any_peer(server: S3Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        near = stack.enter_context(slow_proxy(server.endpoint_url))
        far = stack.enter_context(slow_proxy(server.endpoint_url, 0.03))
        place = prepare_place(server, tmp_path, IMAGES, python=None)
        field = Field(server=server, near=near, far=far, place=place, folder=tmp_path, no_peers="none was installed")
        with closed_afterwards(field.readers):
            field.start(None)
            field.count()
            field.round(Pass)
    found = field.found
    peers = {name for name, kind in KINDS.items() if kind.peer}
    assert set(found.failed) == peers
    assert found.timed[OURS].keys() == set(Pass)
    made = report(place, found, []).to_json()
    assert 0.98 < made["fetched_per_stored_byte"] < 1.02, "every byte is fetched once, but for the shards' empty ends"
    assert made["cold_images_per_s"] > 0
    assert [goal["figure"] for goal in made["goals"]] == [
        "ratio_cold_vs_ranged_gets",
        "ratio_30ms_vs_0ms",
        "fetched_per_stored_byte",
    ], "there is no ratio to peers that were not there"
    assert sum("none was installed" in note for note in made["notes"]) == len(peers)


def test_the_proxy_is_late_by_so_much_and_counts(server: S3Server) -> None:
    bucket = server.new_bucket().removeprefix("s3://").partition("/")[0]
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
    content = bytes(3_000_000)
    with slow_proxy(server.endpoint_url, 0.2) as proxy:
        client = session.client("s3", endpoint_url=proxy.endpoint_url)
        client.put_object(Bucket=bucket, Key="zeros", Body=content)
        proxy.counts()
        began = time.perf_counter()
        assert client.get_object(Bucket=bucket, Key="zeros")["Body"].read() == content
        assert time.perf_counter() - began >= 0.2
        counts = proxy.counts()
        assert counts.requests == 1
        assert len(content) < counts.answered_bytes < len(content) + 2000
        assert proxy.counts().requests == 0
        client.close()


def test_a_reader_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = ["python3", "-c", "raise SystemExit('no such library')"]
    with pytest.raises(ReaderFailed, match="broken has ended: no such library"):
        ReaderProcess("broken", command, {}, tmp_path / "log")


def test_waiting_is_the_share_of_the_time_between_steps() -> None:
    steps = [{"at": float(at), "data_wait_seconds": wait} for at, wait in enumerate([9.0, 0.5, 0.5, 0.2])]
    waited = measured(SMALL, steps)
    assert waited.share == pytest.approx(1.2 / 3)
    assert waited.images_per_second == SMALL.batch
