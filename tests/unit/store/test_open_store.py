"""A store's URI: what is taken, what is refused and with which words, and that it means the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.infra.store import open_store
from starling.infra.store.folder import FolderStore
from starling.infra.store.s3 import S3Store


@pytest.fixture(autouse=True)
def no_endpoint_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/data/store", "/data/store"),
        ("/data//x/../store/", "/data/store"),
        ("store", "{cwd}/store"),
        (".", "{cwd}"),
        ("~/store", "{home}/store"),
        ("my store: 100%", "{cwd}/my store: 100%"),
        ("file:x", "{cwd}/file:x"),
        ("file:///data/my%20store", "/data/my store"),
        ("file://localhost/data/store", "/data/store"),
        ("file:/data/store", "/data/store"),
    ],
)
def test_folders(uri: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = open_store(uri)
    assert isinstance(store, FolderStore)
    assert store.uri == folder.format(cwd=tmp_path, home=tmp_path / "home")
    monkeypatch.chdir("/")
    assert open_store(store.uri).uri == store.uri


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("s3://my-bucket", "s3://my-bucket"),
        ("s3://my-bucket/", "s3://my-bucket"),
        ("s3://my.bucket/a/b/", "s3://my.bucket/a/b"),
        ("s3://my-bucket/a?region=eu-west-1", "s3://my-bucket/a?region=eu-west-1"),
        (
            "s3://my-bucket/a?region=us-east-1&endpoint_url=http%3A%2F%2Flocalhost%3A9000",
            "s3://my-bucket/a?endpoint_url=http://localhost:9000&region=us-east-1",
        ),
    ],
)
def test_buckets(uri: str, canonical: str) -> None:
    store = open_store(uri)
    assert isinstance(store, S3Store)
    assert store.uri == canonical
    assert open_store(canonical).uri == canonical


def test_an_endpoint_from_the_environment_goes_with_the_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://everything:1")
    assert open_store("s3://my-bucket").uri == "s3://my-bucket?endpoint_url=http://everything:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:2")
    assert open_store("s3://my-bucket").uri == "s3://my-bucket?endpoint_url=http://s3:2"
    assert open_store("s3://my-bucket?endpoint_url=http://own:3").uri == "s3://my-bucket?endpoint_url=http://own:3"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "give a folder path, file:///a/folder, or s3://bucket/prefix"),
        ("gs://bucket/x", "gs:// is not supported; give a folder path"),
        ("https://bucket.s3.amazonaws.com/x", "https:// is not supported"),
        ("s3:///prefix", "a bucket's name has 3 to 63"),
        ("s3:/bucket/prefix", "a bucket's name has 3 to 63"),
        ("s3://Bucket/prefix", "a bucket's name has 3 to 63"),
        ("s3://my-bucket/a b", "a prefix has at most 100"),
        ("s3://my-bucket/a/../b", "a prefix has at most 100"),
        ("s3://my-bucket/a?regoin=x", "unknown option 'regoin'; there are endpoint_url and region"),
        ("s3://my-bucket/a?endpoint_url=localhost:9000", "should look like http://host:port"),
        ("s3://my-bucket/a?endpoint_url=http://me:secret@host", "should look like http://host:port"),
        ("s3://[x/a", "Invalid IPv6 URL"),
        ("file://host/data", "a file URI has three slashes"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(uri: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(uri)
    assert words in str(caught.value)
    assert repr(uri) in str(caught.value)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"):
        open_store(str(tmp_path / "file"))
