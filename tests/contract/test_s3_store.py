"""The S3 store on a real server: the contract, and what only S3 can get wrong."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from starling.infra.errors import ObjectNotFound, StoreAccessDenied, StoreUnavailable, VersionConflict
from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store, open_store
from starling.infra.store.s3 import S3Store
from starling.infra.store.s3_client import S3Patience
from tests.contract.store_suite import StoreSuite

PLACE = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<prefix>[^?]+)\?endpoint_url=(?P<endpoint>[^&]+)&region=us-east-1")
IMPATIENT = S3Patience(connect_timeout=0.3, read_timeout=0.3, attempts=2)


def place(store: Store) -> dict[str, str]:
    """Bucket, prefix and endpoint of a store."""
    found = PLACE.fullmatch(store.uri)
    assert found
    return found.groupdict()


def client_for(store: Store) -> Any:
    """A client of our own, to look behind the store's back."""
    return boto3.session.Session().client("s3", endpoint_url=place(store)["endpoint"], region_name="us-east-1")


class TestS3Store(StoreSuite):
    process_rounds = 3
    thread_rounds = 3
    racing_processes = 4
    increments = 3

    @pytest.fixture
    def store(self, s3_store: Store) -> Store:
        return s3_store

    def damage(self, store: Store, key: str) -> None:
        where = {"Bucket": place(store)["bucket"], "Key": f"{place(store)['prefix']}/{key}"}
        found = client_for(store).get_object(**where)
        content = bytearray(found["Body"].read())
        content[len(content) // 2] ^= 1
        client_for(store).put_object(**where, Body=bytes(content), Metadata=found["Metadata"])


def test_two_stores_in_one_bucket_do_not_see_each_other(s3_store: Store) -> None:
    where = place(s3_store)
    base = f"s3://{where['bucket']}"
    options = f"?endpoint_url={where['endpoint']}&region=us-east-1"
    longer = open_store(f"{base}/{where['prefix']}2{options}")
    whole = open_store(f"{base}{options}")
    s3_store.put("k", b"mine")
    longer.put("k", b"longer's")
    assert [info.key for info in s3_store.list()] == ["k"]
    assert whole.get(f"{where['prefix']}/k").data == b"mine"
    assert whole.uri == f"{base}{options}"


def test_what_others_keep_in_the_bucket_does_not_show(s3_store: Store) -> None:
    where = place(s3_store)
    s3_store.put("mine", b"x")
    for name in ("folder marker/", "my notes.txt", ".hidden"):
        client_for(s3_store).put_object(Bucket=where["bucket"], Key=f"{where['prefix']}/{name}", Body=b"")
    assert [info.key for info in s3_store.list()] == ["mine"]


# Users' mistakes


def every_operation(store: Store, file: Path) -> list[Any]:
    """One call of everything that talks to the server."""
    return [
        lambda: store.get("k"),
        lambda: store.put("k", b"x"),
        lambda: store.create("k", b"x"),
        lambda: store.replace("k", b"x", '"v"'),
        lambda: store.delete("k"),
        lambda: store.stat("k"),
        lambda: list(store.list()),
        lambda: store.upload(file, "k"),
        lambda: store.download("k", file.with_name("out")),
        lambda: store.read_range("k", 0, 1),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_a_missing_bucket_is_named_by_every_operation(s3_store: Store, file: Path) -> None:
    missing = open_store(s3_store.uri.replace(place(s3_store)["bucket"], "no-such-bucket"))
    for number, operation in enumerate(every_operation(missing, file)):
        if number == 3:
            continue  # replace: SeaweedFS says 412, but nobody can hold a version of an object in no bucket
        with pytest.raises(StoreAccessDenied, match=r"no-such-bucket.*create it, or correct the store's URI"):
            operation()


def test_wrong_credentials_are_named_by_every_operation(
    s3_store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for operation in every_operation(open_store(s3_store.uri), file):
        with pytest.raises(StoreAccessDenied, match=r"SignatureDoesNotMatch.*check the credentials"):
            operation()


def test_no_credentials_are_named_by_every_operation(
    s3_store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file.with_name("none")))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file.with_name("none")))
    for operation in every_operation(open_store(s3_store.uri), file):
        with pytest.raises(StoreAccessDenied, match="AWS_ACCESS_KEY_ID"):
            operation()


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.usefixtures("s3_store")  # for its credentials
def test_an_endpoint_that_refuses_is_named_by_every_operation(file: Path) -> None:
    endpoint = f"http://127.0.0.1:{_closed_port()}"
    store = S3Store("bucket", "p", endpoint_url=endpoint, patience=S3Patience(attempts=1))
    for operation in every_operation(store, file):
        with pytest.raises(StoreUnavailable, match=f"{endpoint}.*check the network and.*endpoint_url"):
            operation()


@pytest.mark.usefixtures("s3_store")
def test_an_endpoint_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = S3Store("bucket", "p", endpoint_url=endpoint, patience=IMPATIENT)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="Read timeout"):
            store.get("k")
        assert time.monotonic() - started < 30, "by itself it tries for 90 s"


def test_the_default_patience_ends_in_two_minutes() -> None:
    patience = S3Patience()
    backoff = sum(2**attempt for attempt in range(patience.attempts - 1))
    assert patience.attempts * max(patience.connect_timeout, patience.read_timeout) + backoff <= 120


def test_a_version_that_was_never_given_out_is_a_conflict(s3_store: Store) -> None:
    s3_store.put("k", b"x")
    with pytest.raises(VersionConflict):
        s3_store.replace("k", b"y", '"0123456789abcdef0123456789abcdef"')


def test_importing_the_store_package_does_not_import_botocore() -> None:
    code = "import sys, starling.infra.store; assert not {'boto3', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# The server of the tests

SERVE_AND_WAIT = """
import sys, time
from pathlib import Path
from starling.infra.region.s3_server import s3_server
with s3_server(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def test_the_server_dies_with_whoever_runs_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE_AND_WAIT, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout
        server = int(parent.stdout.readline())
        command_line = Path(f"/proc/{server}/cmdline").read_text()
        parent.kill()
    deadline = time.monotonic() + 60
    while _alive(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "/weed\0" in command_line
    assert not _alive(server)
    for port in re.findall(r"\.grpc=(\d+)", command_line):  # what the killed parent could not tidy up
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left.unlink()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_bucket_that_is_deleted_under_us_is_told_from_a_missing_object(s3_server: S3Server, s3_store: Store) -> None:
    store = open_store(s3_server.new_bucket())
    with pytest.raises(ObjectNotFound):
        store.get("k")
    client_for(store).delete_bucket(Bucket=place(store)["bucket"])
    with pytest.raises(StoreAccessDenied, match="no such bucket"):
        store.get("k")
    assert os.environ["AWS_ACCESS_KEY_ID"] == s3_server.access_key
