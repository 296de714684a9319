"""Ranges of many objects straight from the socket, over connections that threads keep."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from starling.infra.store.streaming import Take

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PIECE = 512 << 10
"""Bytes taken from the socket at once: few enough to stay in a core's cache until they are written on."""
SIGNED_FOR = 3600
"""Seconds for which an object's address is signed; it is used for half of that."""


@dataclass(slots=True)
class _Mine:
    """What one thread of one process reads with."""

    process: int
    host: str
    connection: http.client.HTTPConnection
    buffer: memoryview

    def __del__(self) -> None:  # with the thread
        self.connection.close()


class RangeStreams:
    """Reads ranges without botocore, which hands every byte through two more buffers.

    There are no retries here: `read` says how far it came, and the caller goes on the slow way, which has them.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._mine = threading.local()
        self._signed: dict[tuple[str, str], tuple[float, SplitResult]] = {}

    def read(self, client: S3Client, bucket: str, key: str, offset: int, length: int, take: Take) -> int:
        """Hand on the range; returns how many bytes were handed on, fewer than `length` if something went wrong."""
        address = self._address(client, bucket, key)
        # Only botocore knows how to go through a proxy.
        if length == 0 or (address.scheme in getproxies() and not proxy_bypass(address.netloc)):
            return 0
        mine = self._connected(address)
        done = [0]
        try:
            whole = _read(mine, address, offset, length, take, done)
        except (OSError, http.client.HTTPException):
            whole = False
        if not whole:  # the answer may be of no use any more, nor the signature
            mine.connection.close()
            self._signed.pop((bucket, key), None)
        return done[0]

    def _address(self, client: S3Client, bucket: str, key: str) -> SplitResult:
        signed = self._signed.get((bucket, key))
        if signed is None or time.monotonic() - signed[0] > SIGNED_FOR / 2:
            where = {"Bucket": bucket, "Key": key}
            url = client.generate_presigned_url("get_object", Params=where, ExpiresIn=SIGNED_FOR)
            signed = self._signed[bucket, key] = (time.monotonic(), urlsplit(url))
        return signed[1]

    def _connected(self, address: SplitResult) -> _Mine:
        """This thread's connection; never one that was opened before a fork."""
        mine: _Mine | None = getattr(self._mine, "value", None)
        if mine is None or mine.process != os.getpid() or mine.host != address.netloc:
            connection = self._connect(address)
            mine = self._mine.value = _Mine(os.getpid(), address.netloc, connection, memoryview(bytearray(PIECE)))
        return mine

    def _connect(self, address: SplitResult) -> http.client.HTTPConnection:
        if address.scheme != "https":
            return http.client.HTTPConnection(address.netloc, timeout=self._timeout)
        trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        return http.client.HTTPSConnection(address.netloc, timeout=self._timeout, context=trusted)


def _read(mine: _Mine, address: SplitResult, offset: int, length: int, take: Take, done: list[int]) -> bool:
    asked = {"Range": f"bytes={offset}-{offset + length - 1}"}
    mine.connection.request("GET", f"{address.path}?{address.query}", headers=asked)
    answer = mine.connection.getresponse()
    if answer.status != 206 or answer.getheader("Content-Length") != str(length):
        return False
    while done[0] < length:
        count = answer.readinto(mine.buffer[: length - done[0]])
        if not count:
            return False
        take(mine.buffer[:count])
        done[0] += count
    answer.read()  # nothing, but only now may the connection be used again
    return True
