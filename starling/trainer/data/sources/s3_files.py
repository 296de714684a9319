"""The files of a source in S3. Unlike a store's keys, theirs may hold any characters."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from botocore.exceptions import HTTPClientError, IncompleteReadError

from starling.infra.errors import UsageError
from starling.infra.store.opening import s3_options
from starling.infra.store.s3_client import S3Clients, S3Patience
from starling.infra.store.s3_errors import s3_errors_named
from starling.trainer.data.sources.files import SourceFile

ATTEMPTS = 4
"""How often an answer that breaks off is asked for again; botocore retries only what comes before the body."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
"""Wider than what a store takes: old buckets and other servers have such names."""


def list_s3(source: str) -> Iterator[SourceFile]:
    """Everything below s3://bucket/prefix[?endpoint_url=...&region=...]. Raises the store's errors."""
    bucket, prefix, clients = _open(source)
    base = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    with s3_errors_named("list", f"s3://{bucket}/{base}"):
        pages = clients.get().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=base)
        found = [entry for page in pages for entry in page.get("Contents", [])]
    if not found:
        raise UsageError(f"there is nothing below {source} to read images from")
    for entry in found:
        yield SourceFile(
            path=entry["Key"].removeprefix(base),
            size=entry["Size"],
            stamp=entry["ETag"],
            read=functools.partial(_read, source, entry["Key"]),
        )


def read_s3(uri: str) -> bytes:
    """One object. Raises ObjectNotFound and the store's other errors."""
    return _read(uri, _open(uri)[1])


def _read(source: str, key: str) -> bytes:
    bucket, _, clients = _open(source)
    with s3_errors_named("read", f"s3://{bucket}/{key}"):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return clients.get().get_object(Bucket=bucket, Key=key)["Body"].read()
            except (HTTPClientError, IncompleteReadError):
                if attempt == ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


@functools.cache
def _open(uri: str) -> tuple[str, str, S3Clients]:
    """Bucket, key, and the clients for them: the same ones for all files of a source."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UsageError(f"bad source {uri!r}: {error}; give s3://bucket/prefix") from error
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(f"bad source {uri!r}: a bucket's name has 3 to 255 of [A-Za-z0-9._-]; give s3://bucket/prefix")
    options = s3_options(uri, parts)
    endpoint, region = options.get("endpoint_url"), options.get("region")
    clients = S3Clients(endpoint_url=endpoint, region=region, patience=S3Patience())
    return parts.netloc, unquote(parts.path).strip("/"), clients
