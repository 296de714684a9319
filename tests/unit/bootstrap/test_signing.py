"""Our few lines of Signature Version 4 against botocore's."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from starling.infra.bootstrap.stage0 import BootError, Bucket, Missing, bucket_url, signed

AT = datetime.datetime(2026, 1, 31, 23, 59, 59)
KEYS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
BOOT = {"store_uri": "s3://bucket/a/store", "region": "eu-west-1"}


@pytest.mark.parametrize("token", ["", "a-session-token/with+signs=="])
@pytest.mark.parametrize(
    ("method", "url", "data"),
    [
        ("GET", "https://bucket.s3.eu-west-1.amazonaws.com/store/code/ab.tar.gz", b""),
        ("PUT", "https://bucket.s3.eu-west-1.amazonaws.com/store/nodes/a%3Db.0.0/status.json", b'{"a": 1}'),
        ("PUT", "http://127.0.0.1:8333/bucket/store/nodes/x/status.json", b"x"),
    ],
)
def test_signatures_equal_botocores(
    method: str, url: str, data: bytes, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = signed(method, url, data, "eu-west-1", {**KEYS, "Token": token}, AT.strftime("%Y%m%dT%H%M%SZ"))
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: AT)
    request = AWSRequest(method=method, url=url, data=data)
    request.context["payload_signing_enabled"] = True
    credentials = Credentials(KEYS["AccessKeyId"], KEYS["SecretAccessKey"], token or None)
    botocore.auth.S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert ours["Authorization"] == theirs["authorization"]
    assert {name: value for name, value in ours.items() if name in theirs}.items() <= theirs.items()


@pytest.mark.parametrize(
    ("bucket", "region", "endpoint", "url"),
    [
        ("b-1", "us-east-1", None, "https://b-1.s3.us-east-1.amazonaws.com"),
        ("b.1", "us-east-1", None, "https://s3.us-east-1.amazonaws.com/b.1"),
        ("b-1", "cn-north-1", None, "https://b-1.s3.cn-north-1.amazonaws.com.cn"),
        ("b-1", "us-east-1", "http://127.0.0.1:8333/", "http://127.0.0.1:8333/b-1"),
    ],
)
def test_where_a_bucket_is(bucket: str, region: str, endpoint: str | None, url: str) -> None:
    assert bucket_url(bucket, region, endpoint) == url


@pytest.mark.parametrize(
    ("options", "environment", "base"),
    [
        ("", {}, "https://bucket.s3.eu-west-1.amazonaws.com"),
        ("?region=eu-west-3", {}, "https://bucket.s3.eu-west-3.amazonaws.com"),
        ("", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "http://b/bucket"),
        ("?endpoint_url=http://c", {"AWS_ENDPOINT_URL_S3": "http://b"}, "http://c/bucket"),
    ],
)
def test_a_stores_options_come_first_then_the_environment(
    options: str, environment: dict[str, str], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Bucket({**BOOT, "store_uri": BOOT["store_uri"] + options}, lambda: KEYS).base == base


class Moody(BaseHTTPRequestHandler):
    """Answers with the statuses that it was told, one after another; the last one for ever."""

    answers: ClassVar[list[int]]
    asked: ClassVar[list[str]]
    url: ClassVar[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"body")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name for it
        pass


@pytest.fixture
def moody() -> Iterator[type[Moody]]:
    class Handler(Moody):
        """Its answers are this test's own."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Handler.answers, Handler.asked, Handler.url = [200], [], f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Handler
    server.shutdown()
    server.server_close()
    thread.join()


def bucket_of(server: type[Moody]) -> Bucket:
    uri = f"s3://bucket/store?endpoint_url={server.url}"
    return Bucket({"store_uri": uri, "region": "us-east-1"}, lambda: KEYS)


def test_a_server_that_stumbles_is_asked_again(moody: type[Moody]) -> None:
    moody.answers = [503, 200]
    assert bucket_of(moody).get("code/a=b") == b"body"
    assert moody.asked == ["/bucket/store/code/a%3Db"] * 2


def test_what_is_not_there_is_not_asked_for_again(moody: type[Moody]) -> None:
    moody.answers = [404]
    with pytest.raises(Missing, match="code/x is not in the store"):
        bucket_of(moody).get("code/x")
    assert len(moody.asked) == 1


def test_a_store_that_stays_away_is_reported_with_its_last_word(
    moody: type[Moody], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starling.infra.bootstrap.stage0.PAUSES", (0.0, 0.0))
    moody.answers = [403]
    with pytest.raises(BootError, match=r"the store cannot be used: GET .*: 403 body"):
        bucket_of(moody).get("code/x")
    assert len(moody.asked) == 3
