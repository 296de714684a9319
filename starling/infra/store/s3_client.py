"""S3 clients: one for each process, with bounded patience."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTIONS = 32
"""Open at once in one process: parts in flight, and threads that do small things meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Patience:
    """How long to try. With the defaults a dead endpoint is reported after some 10 s if it refuses, 30 s if it swallows
    packets, and 90 s if it takes requests and never answers."""

    connect_timeout: float = 5.0
    """Seconds."""
    read_timeout: float = 20.0
    """Seconds without a byte."""
    attempts: int = 4
    """In all, for each request; with exponential backoff and jitter in between."""


def prepare_for_clients() -> None:
    """Do what clients of processes forked later have in common: 0.1 s of parsing. Makes no connection, asks nobody."""
    session = botocore.session.Session()
    session.register_component("data_loader", _service_descriptions())
    session.create_client("s3", "us-east-1", aws_access_key_id="none", aws_secret_access_key="none").close()


class S3Clients:
    """Makes the client when a process first needs one.

    A client must not cross a fork: its idle connections would be shared with the parent, and answers go to the wrong
    process (silently wrong bytes were seen). The parent's client is kept, unused, lest its end close a connection.
    """

    def __init__(self, *, endpoint_url: str | None, region: str | None, patience: S3Patience) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._patience = patience
        self._by_process: dict[int, S3Client] = {}

    def get(self) -> S3Client:
        """This process' client. Thread-safe; no lock, because a fork could copy it locked."""
        client = self._by_process.get(os.getpid())
        return client or self._by_process.setdefault(os.getpid(), self._make())

    def renew(self) -> None:
        """Have this process' next client look for credentials anew: the present one was made with none, or with some
        that are no longer good, and the user may log in again. Threads that use it still may go on."""
        self._by_process.pop(os.getpid(), None)

    def _make(self) -> S3Client:
        config = Config(
            connect_timeout=self._patience.connect_timeout,
            read_timeout=self._patience.read_timeout,
            retries={"mode": "standard", "total_max_attempts": self._patience.attempts},
            max_pool_connections=CONNECTIONS,
            # Servers other than AWS rarely have a host name for each bucket.
            s3={"addressing_style": "path" if self._endpoint_url else "auto"},
        )
        session = botocore.session.Session()  # one for each client: sessions are not thread-safe
        session.register_component("data_loader", _service_descriptions())
        client = session.create_client("s3", self._region, endpoint_url=self._endpoint_url, config=config)
        return cast("S3Client", client)


@functools.cache
def _service_descriptions() -> Loader:
    """What botocore knows of S3's API: 0.1 s of parsing JSON, done once in a process rather than for each client."""
    return create_loader()
