"""The same images in every reader's own form, in one bucket; and the environment that the peers run in."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import boto3
from botocore.config import Config

from benchmarks.data_images import write_images
from benchmarks.data_turns import ROOT
from starling.infra.region.s3_server import S3Server

PEERS_HOME = ROOT / ".bench-peers"
REQUIREMENTS = ROOT / "benchmarks" / "data_peers" / "requirements.txt"
TARS = 10
"""Tar files for webdataset, and as many shards or chunks for streaming and litdata: each worker has several."""
UPLOADS_AT_ONCE = 16
DATASET = "fundus"


@dataclass(kw_only=True, slots=True)
class Place:
    """Where the images are."""

    folder: Path
    """As local files."""
    bucket: str
    dataset: str
    """Key prefix of the prepared dataset."""
    images: int
    bytes: int
    checksum: int
    """Sum of the CRC-32 of all of them."""
    dataset_bytes: int = 0
    """Of the prepared dataset's shards."""
    failed: dict[str, str] = field(default_factory=dict)
    """Peers that could not write their form of it, and why."""

    def store_uri(self, server: S3Server) -> str:
        """Of the store in which the prepared dataset is."""
        return f"s3://{self.bucket}/store?endpoint_url={server.endpoint_url}&region=us-east-1"


def peers_python() -> Path:
    """Python of the peers' own environment, which is made first if need be (a minute, 1.5 GB).

    Raises CalledProcessError if they cannot be installed.
    """
    python, stamp = PEERS_HOME / "bin" / "python", PEERS_HOME / ".installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers into {PEERS_HOME.name}", file=sys.stderr, flush=True)
        _quietly([sys.executable, "-m", "venv", str(PEERS_HOME)])
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        _quietly([*pip, "-r", str(REQUIREMENTS)])
        stamp.write_text(wanted)
    return python


def prepare_place(server: S3Server, folder: Path, count: int, python: Path | None) -> Place:
    """Make `count` images and put them into a new bucket in all forms; the peers' own only with their `python`."""
    source = folder / "images"
    paths = write_images(source, count)
    contents = [path.read_bytes() for path in paths]
    bucket = server.new_bucket().removeprefix("s3://").partition("/")[0]
    place = Place(
        folder=source,
        bucket=bucket,
        dataset=f"store/data/{DATASET}",
        images=count,
        bytes=sum(map(len, contents)),
        checksum=sum(map(crc32, contents)),
    )
    _upload(server, bucket, ((f"objects/{i:05}.jpg", content) for i, content in enumerate(contents)))
    _upload(server, bucket, _tars(contents))
    place.dataset_bytes = _prepare_ours(server, place)
    if python is not None:
        for peer, prefix in (("streaming", "mds"), ("litdata", "lit")):
            try:
                _write_peers(python, peer, source, folder / prefix, place.bytes // TARS)
            except subprocess.CalledProcessError as error:
                place.failed[peer] = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
                continue
            files = (path for path in sorted((folder / prefix).rglob("*")) if path.is_file())
            _upload(
                server, bucket, ((f"{prefix}/{path.relative_to(folder / prefix)}", path.read_bytes()) for path in files)
            )
    return place


def _tars(contents: list[bytes]) -> Iterator[tuple[str, bytes]]:
    each = -(-len(contents) // TARS)
    for number in range(TARS):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for index, content in list(enumerate(contents))[number * each : (number + 1) * each]:
                member = tarfile.TarInfo(f"{index:05}.jpg")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        yield f"tars/{number:05}.tar", stream.getvalue()


def _upload(server: S3Server, bucket: str, objects: Iterator[tuple[str, bytes]]) -> None:
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
    config = Config(max_pool_connections=UPLOADS_AT_ONCE)
    client = session.client("s3", endpoint_url=server.endpoint_url, config=config)
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        list(pool.map(lambda item: client.put_object(Bucket=bucket, Key=item[0], Body=item[1]), objects))


def _prepare_ours(server: S3Server, place: Place) -> int:
    """As a user would. Returns the bytes of the shards."""
    command = [sys.executable, "-m", "starling.cli", "data", "prepare", str(place.folder), DATASET]
    command += ["--store", place.store_uri(server)]
    _quietly(command, server.environment)
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1")
    listed = session.client("s3", endpoint_url=server.endpoint_url).list_objects_v2(
        Bucket=place.bucket, Prefix=f"{place.dataset}/"
    )
    return sum(found["Size"] for found in listed["Contents"] if found["Key"].endswith(".tar"))


def _write_peers(python: Path, peer: str, source: Path, target: Path, shard_bytes: int) -> None:
    command = [str(python), "-m", "benchmarks.data_peers", peer, str(source), str(target), str(shard_bytes)]
    _quietly(command, {"PYTHONPATH": str(ROOT), "TMPDIR": str(target.parent)})  # litdata leaves folders there


def _quietly(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=True)
