"""Preparing from and to a real S3 server, and over a kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3.session
import numpy as np
import psutil
import pytest
from PIL import Image

from starling.infra.errors import StoreAccessDenied, StoreUnavailable, UsageError
from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store, object_uri, open_store
from starling.trainer.data.index import load_index
from starling.trainer.data.prepare import prepare
from starling.trainer.data.rendition import Rendition
from starling.trainer.data.sources.found import LabelTable
from starling.trainer.data.verify import verify

COUNT = 24


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """Twelve patients in the layout of Kaggle, with names that no key of a store may have."""
    folder = tmp_path / "eyes"
    (folder / "my images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    rows = ["image,level"]
    for number in range(COUNT):
        name = f"{number // 2}_{'left' if number % 2 else 'right'}"
        pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "my images" / f"{name}.jpeg")
        rows.append(f"{name},{number // 2 % 3}")
    (folder / "trainLabels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def bucket(s3_store: Store, eyes: Path) -> str:
    """A URI below which the images lie in S3."""
    uri = object_uri(s3_store.uri, "raw")
    parts = urlsplit(uri)
    client: Any = boto3.session.Session().client("s3", endpoint_url=_endpoint(uri), region_name="us-east-1")
    for path in eyes.rglob("*.*"):
        key = f"{parts.path.strip('/')}/{path.relative_to(eyes)}"
        client.upload_file(str(path), parts.netloc, key)
    return uri


def _endpoint(uri: str) -> str:
    return uri.partition("endpoint_url=")[2].partition("&")[0]


def test_s3_gives_what_a_folder_gives(bucket: str, eyes: Path, s3_store: Store, folder_store: Store) -> None:
    local = prepare(str(eyes), folder_store, "eyes", shard_bytes=20480)
    remote = prepare(bucket, s3_store, object_uri(s3_store.uri, "sets/eyes"), shard_bytes=20480, workers=2)
    assert remote["content_sha256"] == local["content_sha256"]
    assert remote["shards"] > 2
    assert remote["prepared"]["patient_wise"] is True
    assert verify(folder_store, remote["uri"])["intact"] is True
    assert sum(remote["splits"].values()) == COUNT
    again = prepare(bucket, s3_store, object_uri(s3_store.uri, "sets/eyes"), shard_bytes=20480)
    assert again["already_prepared"] is True


def test_the_endpoint_may_stand_in_the_environment(
    bucket: str, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", _endpoint(bucket))
    plain = bucket.partition("?")[0]
    summary = prepare(plain, folder_store, "eyes", labels=LabelTable(path=f"{plain}/trainLabels.csv"))
    assert sum(summary["splits"].values()) == COUNT


def test_a_wrong_bucket_prefix_or_login_is_named(
    bucket: str, eyes: Path, s3_server: S3Server, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = bucket.replace(urlsplit(bucket).netloc, "no-such-bucket-here")
    with pytest.raises(StoreAccessDenied, match="no such bucket"):
        prepare(nowhere, folder_store, "eyes")
    with pytest.raises(StoreAccessDenied, match="no such bucket"):
        prepare(str(eyes), folder_store, nowhere)
    with pytest.raises(UsageError, match="nothing below"):
        prepare(bucket.replace("/raw", "/rare"), folder_store, "eyes")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises((StoreAccessDenied, StoreUnavailable), match="credentials"):
        prepare(bucket + "&region=us-east-2", folder_store, "eyes")  # another URI: its client is made anew
    with pytest.raises(StoreAccessDenied, match="credentials"):
        prepare(str(eyes), folder_store, object_uri(open_store(s3_server.new_bucket()).uri, "sets/eyes"))
    assert list(folder_store.list()) == []


def test_a_killed_preparation_leaves_no_process_and_goes_on_where_it_ended(
    tmp_path: Path, folder_store: Store, wait_for: Callable[[Callable[[], bool], str], None]
) -> None:
    source = tmp_path / "pets"
    draw = np.random.default_rng(0)
    for number in range(120):
        target = source / "ab"[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (220, 220, 3), dtype=np.uint8)).save(target)
    words = ["data", "prepare", str(source), "pets", "--size", "200", "--shard-size", "100KiB", "--workers", "2"]
    command = [sys.executable, "-m", "starling.cli", *words, "--store", folder_store.uri, "--json"]

    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # who is killed leaves its temporary files
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    wait_for(lambda: len(list(folder_store.list("data/pets/parts/"))) > 3, "a few shards are finished")
    workers = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    wait_for(lambda: not any(map(_lives, workers)), "its workers are gone")
    with pytest.raises(UsageError, match="no dataset called pets"):
        load_index(folder_store, "pets")
    finished = len(list(folder_store.list("data/pets/parts/")))

    second = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"goes on behind {finished} shards" in second.stderr
    summary = json.loads(second.stdout)
    assert summary["uploaded_shards"] <= summary["shards"] - finished
    whole = prepare(str(source), folder_store, "other", rendition=Rendition(size=200), shard_bytes=100 * 1024)
    assert whole["content_sha256"] == summary["content_sha256"]


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], str], None]:
    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"not within a minute: {what}"
            time.sleep(0.01)

    return wait


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
