"""Large objects straight from memory and into it."""

from __future__ import annotations

import http.client
import io
import os
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RANGE = 16 << 20
"""Bytes asked for at once; AWS advises 8 to 16 MiB."""
IN_FLIGHT = 4
"""Ranges of one object on their way at once."""
VALID_FOR = 3600
"""Seconds for which the address of an object is signed."""


class Pieces(io.RawIOBase):
    """Pieces of memory, one after the other, as a file to read."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._size = sum(map(len, self._pieces))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._size, self._at + size)
        found, begin = [], 0
        for piece in self._pieces:
            end = begin + len(piece)
            if begin < stop and end > self._at:
                found.append(piece[max(0, self._at - begin) : stop - begin])
            begin = end
        self._at = max(self._at, stop)
        return b"".join(found)


def fill_memory(reader: RangeReader, target: memoryview, patiently: Callable[[int, memoryview], None]) -> None:
    """Read one object of this size by several threads; `patiently(offset, part)` reads what the reader could not."""

    def fetch(offset: int) -> None:
        part = target[offset : offset + RANGE]
        if not reader.read(offset, part, len(target)):
            patiently(offset, part)

    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="store-download") as pool:
        try:
            for _ in pool.map(fetch, range(0, len(target), RANGE)):  # the first error cancels what has not begun
                pass
        finally:
            reader.close()


class RangeReader:
    """Reads ranges of one object over connections of its own, from the socket into their place.

    botocore hands every byte through two more buffers, which takes twice the CPU time of everything else together.
    There are no retries here: `read` says whether it worked, and if not the caller goes the slow way, which has them.
    """

    def __init__(self, client: S3Client, bucket: str, key: str, timeout: float) -> None:
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=VALID_FOR)
        parts = urlsplit(url)
        self._host = parts.netloc
        self._path = f"{parts.path}?{parts.query}"
        self._secure = parts.scheme == "https"
        self._timeout = timeout
        # Only botocore knows how to go through a proxy.
        self._usable = parts.scheme not in getproxies() or bool(proxy_bypass(parts.netloc))
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def read(self, offset: int, target: memoryview, size: int) -> bool:
        """Fill `target` from `offset` on; False if that did not work, or the object is not of `size` bytes."""
        if not self._usable:
            return False
        try:
            return self._read(self._connection(), offset, target, size)
        except (OSError, http.client.HTTPException):
            self._connection().close()  # the next request opens it again
            return False

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    def _read(self, connection: http.client.HTTPConnection, offset: int, target: memoryview, size: int) -> bool:
        last = offset + len(target) - 1
        connection.request("GET", self._path, headers={"Range": f"bytes={offset}-{last}"})
        answer = connection.getresponse()
        if answer.status != 206 or answer.getheader("Content-Range") != f"bytes {offset}-{last}/{size}":
            connection.close()
            return False
        at = 0
        while at < len(target):
            count = answer.readinto(target[at:])
            if not count:
                connection.close()
                return False
            at += count
        answer.read()  # nothing, but only now may the connection be used again
        return True

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is None:
            found = self._mine.connection = self._connect()
            self._all.append(found)
        return found

    def _connect(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, timeout=self._timeout)
        trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        return http.client.HTTPSConnection(self._host, timeout=self._timeout, context=trusted)
