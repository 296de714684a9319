"""The S3 store when the network or the server fails: through a proxy that makes trouble, before the real server."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chaos.flaky_proxy import FlakyProxy, Trouble, flaky_proxy
from starling.infra.clock import FakeClock
from starling.infra.errors import (
    ObjectExists,
    StoreAccessDenied,
    StoreCredentialsExpired,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store, open_store
from starling.infra.store.s3 import S3Store
from starling.infra.store.s3_client import S3Patience

PATIENCE = S3Patience(connect_timeout=10, read_timeout=20, attempts=2)
"""So much that a busy machine is not taken for a server that hangs."""
HASTE = S3Patience(connect_timeout=10, read_timeout=3, attempts=2)
"""Where one does hang: the test waits for all of it."""
TRANSIENT: list[dict[str, Any]] = [
    {"trouble": Trouble.ANSWER, "status": 503, "code": "SlowDown"},
    {"trouble": Trouble.ANSWER, "status": 500, "code": "InternalError"},
    {"trouble": Trouble.RESET},
    {"trouble": Trouble.LOSE_ANSWER},
    {"trouble": Trouble.HANG},
]
BY_NAME = [str(each.get("code", each["trouble"])) for each in TRANSIENT]


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FlakyProxy]:
    upstream = urlsplit(s3_server.endpoint_url)
    with flaky_proxy((str(upstream.hostname), int(upstream.port or 0))) as proxy:
        yield proxy


@pytest.fixture
def direct(s3_store: Store) -> Store:
    """The same store without the proxy."""
    return s3_store


@pytest.fixture
def trouble() -> None:
    """Tests that are parametrized with one take its place."""


@pytest.fixture
def store(direct: Store, proxy: FlakyProxy, trouble: Trouble | dict[str, Any] | None) -> Store:
    place = urlsplit(direct.uri)
    kind = trouble["trouble"] if isinstance(trouble, dict) else trouble
    return S3Store(
        place.netloc,
        place.path.strip("/"),
        endpoint_url=proxy.endpoint_url,
        region="us-east-1",
        patience=HASTE if kind is Trouble.HANG else PATIENCE,
        clock=FakeClock(),  # for the store's own pauses; botocore's are real
    )


@pytest.mark.parametrize("trouble", TRANSIENT, ids=BY_NAME)
def test_writing_survives(store: Store, proxy: FlakyProxy, trouble: dict[str, Any]) -> None:
    version = store.put("k", b"1")
    proxy.play(method="PUT", **trouble)
    assert store.replace("k", b"2", version) == store.get("k").version
    assert store.get("k").data == b"2"
    assert proxy.count("PUT") == 3


@pytest.mark.parametrize("trouble", [*TRANSIENT, {"trouble": Trouble.CUT}], ids=[*BY_NAME, "cut"])
def test_reading_survives(store: Store, proxy: FlakyProxy, trouble: dict[str, Any]) -> None:
    content = os.urandom(100_000)
    store.put("k", content)
    proxy.play(method="GET", **trouble)
    assert store.get("k").data == content
    assert proxy.count("GET") == 2


def test_a_create_whose_answer_was_lost_has_won(store: Store, proxy: FlakyProxy) -> None:
    proxy.play(Trouble.LOSE_ANSWER, "PUT")
    assert store.create("k", b"mine") == store.get("k").version
    assert store.get("k").data == b"mine"
    with pytest.raises(ObjectExists):
        store.create("k", b"mine")


def test_a_create_that_was_retried_and_came_too_late_has_lost(store: Store, direct: Store, proxy: FlakyProxy) -> None:
    direct.create("k", b"same bytes")
    proxy.play(Trouble.ANSWER, "PUT")
    with pytest.raises(ObjectExists):  # though our bytes lie there: they are another writer's
        store.create("k", b"same bytes")
    assert proxy.count("PUT") == 2


def test_a_replace_whose_answer_was_lost_and_that_was_overwritten_meanwhile_tells_no_lie(
    store: Store, direct: Store, proxy: FlakyProxy
) -> None:
    version = direct.put("k", b"1")
    proxy.play(Trouble.ANSWER, "PUT")
    direct.put("k", b"2")
    with pytest.raises(VersionConflict):
        store.replace("k", b"3", version)
    assert direct.get("k").data == b"2"


def test_a_conflict_that_s3_could_not_decide_is_tried_again(store: Store, proxy: FlakyProxy) -> None:
    proxy.play(Trouble.ANSWER, "PUT", status=409, code="ConditionalRequestConflict")
    version = store.create("k", b"1")
    proxy.play(Trouble.ANSWER, "PUT", status=409, code="ConditionalRequestConflict")
    store.replace("k", b"2", version)
    assert store.get("k").data == b"2"
    proxy.play(Trouble.ANSWER, "PUT", status=409, code="ConditionalRequestConflict", times=PATIENCE.attempts)
    with pytest.raises(StoreUnavailable, match=r"ConditionalRequestConflict.*other writers keep changing it"):
        store.create("k2", b"1")


def test_a_replaced_object_that_is_gone_is_a_conflict_on_aws_too(store: Store, proxy: FlakyProxy) -> None:
    proxy.play(Trouble.ANSWER, "PUT", status=404, code="NoSuchKey")
    with pytest.raises(VersionConflict):
        store.replace("k", b"2", '"v"')


@pytest.mark.parametrize(
    ("trouble", "method", "query"),
    [
        (Trouble.RESET, "PUT", "partNumber=2"),
        (Trouble.HANG, "PUT", "partNumber=2"),
        (Trouble.ANSWER, "POST", "uploadId="),
        (Trouble.LOSE_ANSWER, "POST", "uploadId="),
    ],
)
def test_a_large_upload_survives(
    store: Store, direct: Store, proxy: FlakyProxy, tmp_path: Path, trouble: Trouble, method: str, query: str
) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(os.urandom(17 << 20))
    proxy.play(trouble, method, query=query)
    store.upload(file, "k")
    direct.download("k", back)
    assert back.read_bytes() == file.read_bytes()
    assert sum(query in path for seen, path in proxy.seen if seen == method) == 2


def test_an_upload_whose_completion_is_repeated_is_complete(
    store: Store, direct: Store, proxy: FlakyProxy, tmp_path: Path
) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(os.urandom(17 << 20))
    proxy.play(Trouble.LOSE_ANSWER, "POST", query="uploadId=")
    proxy.play(Trouble.ANSWER, "POST", query="uploadId=", status=404, code="NoSuchUpload")
    store.upload(file, "k")
    direct.download("k", back)
    assert back.read_bytes() == file.read_bytes()
    file.write_bytes(os.urandom(17 << 20))
    proxy.play(Trouble.ANSWER, "POST", query="uploadId=", status=404, code="NoSuchUpload")
    with pytest.raises(StoreUnavailable, match="NoSuchUpload"):
        store.upload(file, "k")


@pytest.mark.parametrize("trouble", [Trouble.CUT, Trouble.HANG])
def test_a_large_download_survives(
    store: Store, direct: Store, proxy: FlakyProxy, tmp_path: Path, trouble: Trouble
) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(os.urandom(20 << 20))
    direct.upload(file, "k")
    proxy.play(trouble, "GET")
    store.download("k", back)
    assert back.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("trouble", "times"),
    [(Trouble.CUT, 1), (Trouble.HANG, 1), (Trouble.RESET, 2), (Trouble.ANSWER, 3), (Trouble.CUT, 3)],
)
def test_a_large_download_into_memory_survives(
    store: Store, direct: Store, proxy: FlakyProxy, trouble: Trouble, times: int
) -> None:
    content, back = os.urandom(20 << 20), bytearray(20 << 20)
    direct.upload_memory([memoryview(content)], "k")
    proxy.play(trouble, "GET", times=times)
    store.download_memory("k", memoryview(back))
    assert back == content
    assert proxy.count("GET") == 2 + times


def test_a_download_into_memory_through_a_proxy_is_left_to_botocore(
    store: Store, proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("k", b"content")
    back = bytearray(7)
    monkeypatch.setenv("http_proxy", proxy.endpoint_url)  # it passes on whatever it is asked for
    store.download_memory("k", memoryview(back))
    assert (back, proxy.count("GET")) == (b"content", 1)


def test_an_object_rewritten_during_its_download_is_never_mixed(
    store: Store, direct: Store, proxy: FlakyProxy, tmp_path: Path
) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(b"1" * (20 << 20))
    direct.upload(file, "k")
    proxy.play(Trouble.ANSWER, "GET", status=412, code="PreconditionFailed")
    store.download("k", back)
    assert back.read_bytes() == file.read_bytes()


def test_when_all_tries_fail_the_error_is_clear(store: Store, proxy: FlakyProxy) -> None:
    proxy.play(Trouble.ANSWER, "PUT", times=100)
    with pytest.raises(StoreUnavailable, match=r"cannot write s3://test-.*/k at http.*: SlowDown, scripted.*try again"):
        store.put("k", b"1")
    assert proxy.count("PUT") == PATIENCE.attempts


def test_a_body_that_always_breaks_off_is_reported_in_the_end(store: Store, proxy: FlakyProxy) -> None:
    store.put("k", b"x" * 1000)
    proxy.play(Trouble.CUT, "GET", times=100)
    with pytest.raises(StoreUnavailable, match=r"cannot read s3://.*/k"):
        store.get("k")
    assert proxy.count("GET") == PATIENCE.attempts


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", StoreAccessDenied),
        (400, "ExpiredToken", StoreCredentialsExpired),
        (403, "RequestTimeTooSkewed", StoreAccessDenied),
        (301, "PermanentRedirect", StoreAccessDenied),
        (507, "XStorageFull", StoreUnavailable),
        (418, "SomethingNew", StoreError),
    ],
)
def test_a_refusal_is_reported_by_its_code_and_not_retried(
    store: Store, proxy: FlakyProxy, status: int, code: str, kind: type[StoreError]
) -> None:
    proxy.play(Trouble.ANSWER, "PUT", status=status, code=code, times=100)
    with pytest.raises(StoreError, match=code) as caught:
        store.put("k", b"1")
    assert type(caught.value) is kind
    assert proxy.count("PUT") == 1


def test_a_new_login_is_picked_up(
    store: Store, proxy: FlakyProxy, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(login))
    login.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = old\n")
    proxy.play(Trouble.ANSWER, "PUT", status=400, code="ExpiredToken")
    with pytest.raises(StoreCredentialsExpired, match="log in again"):
        store.put("k", b"1")
    keys = f"aws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    login.write_text(f"[default]\n{keys}")
    store.put("k", b"2")
    assert store.get("k").data == b"2"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of just what is tested here
def test_a_forked_process_opens_its_own_connection(store: Store, proxy: FlakyProxy) -> None:
    store.put("k", b"1")
    child = multiprocessing.get_context("fork").Process(target=store.get, args=("k",))
    child.start()
    child.join(30)
    store.get("k")
    assert child.exitcode == 0
    parent_before, forked, parent_after = proxy.connections
    assert parent_before == parent_after, "the parent kept its connection, so the child could have used it"
    assert forked != parent_before


def test_the_proxy_alone_changes_nothing(store: Store, proxy: FlakyProxy) -> None:
    store.create("k", b"1")
    assert [info.key for info in open_store(store.uri).list()] == ["k"]
    assert proxy.count("PUT") == 1
