"""Large objects, in parallel parts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

from s3transfer.manager import TransferConfig, TransferManager

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 8 << 20
"""Bytes of a range or part; AWS advises 8 to 16 MiB."""
IN_FLIGHT = 8
"""Parts on their way at once; also bounds memory, to IN_FLIGHT * PART."""


def upload(client: S3Client, source: str | IO[bytes], bucket: str, key: str, sha256: str) -> None:
    """Write a file, or what can be read and sought like one, as one object with its checksum in the metadata.

    Raises ClientError, BotoCoreError, OSError."""
    config = TransferConfig(multipart_threshold=2 * PART, multipart_chunksize=PART, max_request_concurrency=IN_FLIGHT)
    # Not boto3's upload_file: it wraps errors into one that has lost their codes.
    with TransferManager(client, config) as manager:
        manager.upload(source, bucket, key, extra_args={"Metadata": {"sha256": sha256}}).result()


def fill_file(path: Path, first: bytes, size: int, read: Callable[[int, int], bytes]) -> None:
    """Write `first`, then the rest up to `size` bytes, fetched through `read(offset, length)` by several threads."""
    path.write_bytes(first)

    def fetch(offset: int) -> None:
        part = read(offset, min(PART, size - offset))
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(part)

    offsets = range(len(first), size, PART)
    if offsets:
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="store-download") as pool:
            for _ in pool.map(fetch, offsets):  # the first error ends this loop, which cancels what has not begun
                pass
