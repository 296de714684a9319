"""The IMDS emulator and the IMDSv2 client, over real HTTP on loopback."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from starling.infra.clock import FakeClock
from starling.infra.errors import ImdsUnavailable, UsageError
from starling.infra.imds.client import ENDPOINT_VARIABLE, TOKEN_SECONDS, ImdsClient
from starling.infra.imds.server import Identity, ImdsServer
from starling.infra.records import Market

IDENTITY = Identity(
    instance_id="i-1",
    instance_type="local",
    zone="local-a",
    region="local",
    address="127.0.0.1",
    market=Market.SPOT,
    launched_at=1_500_000_000.0,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_505_722_800.0)


@pytest.fixture
def server(clock: FakeClock) -> Iterator[ImdsServer]:
    server = ImdsServer(IDENTITY, clock=clock)
    yield server
    server.close()


@pytest.fixture
def client(server: ImdsServer, clock: FakeClock) -> ImdsClient:
    return ImdsClient(server.endpoint, clock=clock, timeout=60.0)  # both are in this one process


def raw(server: ImdsServer, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=60)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("meta-data/instance-id", "i-1"),
        ("meta-data/instance-type", "local"),
        ("meta-data/placement/availability-zone", "local-a"),
        ("meta-data/placement/region", "local"),
        ("meta-data/local-ipv4", "127.0.0.1"),
        ("meta-data/instance-life-cycle", "spot"),
    ],
)
def test_identity(client: ImdsClient, path: str, value: str) -> None:
    assert client.get(path) == value


def test_identity_document(client: ImdsClient) -> None:
    document = json.loads(client.get("dynamic/instance-identity/document") or "")
    assert document["instanceId"] == "i-1"
    assert document["region"] == "local"
    assert document["pendingTime"] == "2017-07-14T02:40:00Z"


@pytest.mark.parametrize(
    "path",
    [
        "meta-data/spot/instance-action",
        "meta-data/spot/termination-time",
        "meta-data/events/recommendations/rebalance",
        "meta-data/iam/security-credentials/",
    ],
)
def test_what_is_not_due_is_answered_with_404_and_is_no_error(
    server: ImdsServer, client: ImdsClient, path: str
) -> None:
    token = server.issue_token("60")
    assert raw(server, "GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": token or ""})[0] == 404
    assert client.get(path) is None


def test_notices_are_served_in_whole_seconds_rounded_down(server: ImdsServer, client: ImdsClient) -> None:
    server.post_interruption(1_505_722_920.9)
    server.post_rebalance(1_505_722_801.0)
    action = json.loads(client.get("meta-data/spot/instance-action") or "")
    assert action == {"action": "terminate", "time": "2017-09-18T08:22:00Z"}
    assert client.get("meta-data/spot/termination-time") == "2017-09-18T08:22:00Z"
    rebalance = json.loads(client.get("meta-data/events/recommendations/rebalance") or "")
    assert rebalance == {"noticeTime": "2017-09-18T08:20:01Z"}


@pytest.mark.parametrize("headers", [{}, {"X-aws-ec2-metadata-token": "made-up"}])
def test_reads_without_a_token_are_refused(server: ImdsServer, headers: dict[str, str]) -> None:
    assert raw(server, "GET", "/latest/meta-data/instance-id", headers)[0] == 401


@pytest.mark.parametrize("ttl", [None, "0", "21601", "soon", "-1"])
def test_a_token_needs_a_sensible_lifetime(server: ImdsServer, ttl: str | None) -> None:
    headers = {} if ttl is None else {"X-aws-ec2-metadata-token-ttl-seconds": ttl}
    assert raw(server, "PUT", "/latest/api/token", headers)[0] == 400


def test_a_token_ends_with_its_lifetime(server: ImdsServer, clock: FakeClock) -> None:
    status, token = raw(server, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "10"})
    assert status == 200
    clock.advance(9)
    assert raw(server, "GET", "/latest/meta-data/instance-id", {"X-aws-ec2-metadata-token": token}) == (200, "i-1")
    clock.advance(1)
    assert raw(server, "GET", "/latest/meta-data/instance-id", {"X-aws-ec2-metadata-token": token})[0] == 401


def test_the_client_renews_its_token_in_time(client: ImdsClient, clock: FakeClock) -> None:
    assert client.get("meta-data/instance-id") == "i-1"
    clock.advance(10 * TOKEN_SECONDS)
    assert client.get("meta-data/instance-id") == "i-1"


def test_the_client_takes_a_new_token_when_the_service_no_longer_knows_the_old_one(
    server: ImdsServer, clock: FakeClock
) -> None:
    stopped = FakeClock()  # so that the token looks fresh
    client = ImdsClient(server.endpoint, clock=stopped, timeout=60.0)
    assert client.get("meta-data/instance-id") == "i-1"
    clock.advance(10 * TOKEN_SECONDS)
    assert client.get("meta-data/instance-id") == "i-1"


def test_the_endpoint_comes_from_the_standard_variable(server: ImdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, server.endpoint)
    assert ImdsClient().get("meta-data/instance-id") == "i-1"
    monkeypatch.setenv(ENDPOINT_VARIABLE, "imds.example")
    with pytest.raises(UsageError, match="must look like"):
        ImdsClient()


def test_nobody_there_is_an_error_that_names_the_endpoint(server: ImdsServer) -> None:
    gone = ImdsServer(IDENTITY)
    gone.close()
    with pytest.raises(ImdsUnavailable, match=gone.endpoint):
        ImdsClient(gone.endpoint).get("meta-data/instance-id")


class _Sick(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self.answer(200, "token")

    def do_GET(self) -> None:
        self.answer(500, "")

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_server_error_is_not_taken_for_no_notice() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Sick)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with pytest.raises(ImdsUnavailable, match="500"):
            ImdsClient(f"http://127.0.0.1:{server.server_port}", timeout=60.0).get("meta-data/spot/instance-action")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
