"""Fixtures that several folders of tests use."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.region import s3_server as servers
from starling.infra.store import Store, open_store


def pytest_sessionfinish(session: pytest.Session) -> None:
    """SeaweedFS listens on sockets at a fixed place, and leaves them when it is killed. By the first process, once."""
    if not hasattr(session.config, "workerinput"):
        for left in Path("/tmp").glob("seaweedfs-*-grpc-*.sock"):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(left)):
                    left.unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def _compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where torch keeps it: it makes the folder whether there is any or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """A real S3 server; `monkeypatch.setenv` its `environment` to use it."""
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_bucket(s3_server: servers.S3Server) -> str:
    """URI of a store in a bucket that all tests share; making one for each would be slow."""
    return s3_server.new_bucket()


@pytest.fixture
def s3_store(s3_server: servers.S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store on the real S3 server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    place, _, options = s3_bucket.partition("?")
    return open_store(f"{place}-{secrets.token_hex(4)}?{options}")


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store(str(tmp_path / "store"))
