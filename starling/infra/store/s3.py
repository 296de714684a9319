"""A store in an S3 bucket, AWS's or a compatible server's."""

from __future__ import annotations

import hashlib
import itertools
import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict, cast
from urllib.parse import urlencode

from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from starling.infra.store.base import ObjectInfo, Versioned
from starling.infra.store.checksums import corrupt, sha256_of, wrong_size
from starling.infra.store.keys import check_key, check_prefix, is_key
from starling.infra.store.oserrors import os_errors_named
from starling.infra.store.s3_client import S3Clients, S3Patience
from starling.infra.store.s3_errors import (
    BEYOND_THE_END,
    REFUSED,
    another_login_may_mend,
    code_of,
    s3_errors_named,
    was_retried,
)
from starling.infra.store.s3_memory import Pieces, RangeReader, fill_memory
from starling.infra.store.s3_stream import RangeStreams
from starling.infra.store.s3_transfer import PART, fill_file, upload
from starling.infra.store.streaming import Take
from starling.infra.store.writing import aside

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectTypeDef

    _Answer = tuple[bytes, GetObjectOutputTypeDef]

_REWRITES = 5
"""How often a download starts again because the object was rewritten under it."""
_BROKEN_OFF = (HTTPClientError, IncompleteReadError, FlexibleChecksumError)
"""What reading a body raises; botocore retries only what comes before it."""


class _Place(TypedDict):
    Bucket: str
    Key: str


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """Parts of an object that was not completed; they cost what the object would."""

    key: str
    id: str
    begun_at: float
    """Seconds since the epoch."""


class S3Store:
    """Objects under `prefix` of `bucket`.

    How the store's guarantees are kept:

    * S3 shows an object whole or not at all, and the newest finished write. `create` is a PUT with `If-None-Match: *`,
      `replace` one with `If-Match`. The server must honour both: AWS and SeaweedFS (4.48 is tested) do, but some others
      ignore them without a word and are no use as a store. A version is the ETag.
    * Requests are retried on 5xx, throttling, timeouts and broken connections. A conditional write that was retried
      and then refused may have won unheard: each carries a token of its own in its metadata, by which it is recognised.
      If all tries fail, StoreUnavailable is raised and the write may still have happened.
    * `upload` keeps the SHA-256 in the object's metadata, and `download` verifies it. An upload that is killed halfway
      leaves parts that cost money and are no object: give the bucket a rule AbortIncompleteMultipartUpload.

    Credentials come from where boto3 looks for them, never from the URI.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        patience: S3Patience | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._bucket = bucket
        self._base = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url
        self._region = region
        self._patience = patience or S3Patience()
        self._clock = clock or SystemClock()
        self._clients = S3Clients(endpoint_url=endpoint_url, region=region, patience=self._patience)
        self._streams = RangeStreams(self._patience.read_timeout)

    @property
    def uri(self) -> str:
        given = {"endpoint_url": self._endpoint_url, "region": self._region}
        options = urlencode({name: value for name, value in given.items() if value}, safe=":/")
        return f"s3://{self._bucket}/{self._base}".rstrip("/") + (f"?{options}" if options else "")

    def get(self, key: str) -> Versioned:
        data, answer = self._read(key)
        return Versioned(data=data, version=answer["ETag"])

    def put(self, key: str, data: bytes) -> str:
        with self._errors("write", key):
            return self._client.put_object(**self._place(key), Body=data)["ETag"]

    def create(self, key: str, data: bytes) -> str:
        lost = ObjectExists(f"{key} exists already in the store {self.uri}")
        return self._put_if(key, data, {"IfNoneMatch": "*"}, lost)

    def replace(self, key: str, data: bytes, version: str) -> str:
        lost = VersionConflict(f"{key} in the store {self.uri} was changed by another writer since it was read")
        return self._put_if(key, data, {"IfMatch": version}, lost)

    def delete(self, key: str) -> None:
        with self._errors("delete", key):
            self._client.delete_object(**self._place(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._listed(self._base + check_prefix(prefix))

    def stat(self, key: str) -> ObjectInfo:
        # Not HEAD: its 404 has no body, so a missing bucket would look like a missing object.
        where = self._place(key)
        with self._errors("look at", key):
            answer = self._client.list_objects_v2(Bucket=where["Bucket"], Prefix=where["Key"], MaxKeys=1)
        for found in map(self._info, answer.get("Contents", [])):
            if found.key == key:
                return found
        raise ObjectNotFound(f"there is no {key} in the store {self.uri}")

    def upload(self, path: Path, key: str) -> str:
        with os_errors_named("read", path):
            digest = sha256_of(path)
        with self._errors(f"copy {path} to", key), os_errors_named("read", path):
            self._upload(str(path), key, digest)
        return digest

    def upload_memory(self, pieces: Sequence[memoryview], key: str) -> str:
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        with self._errors("write", key):
            self._upload(cast("IO[bytes]", Pieces(pieces)), key, digest.hexdigest())
        return digest.hexdigest()

    def _upload(self, source: str | IO[bytes], key: str, digest: str) -> None:
        try:
            upload(self._client, source, self._bucket, self._base + check_key(key), digest)
        except ClientError as error:
            # The request that completes an upload may be repeated after its answer was lost.
            if code_of(error) != "NoSuchUpload" or not self._own_write(key, "sha256", digest):
                raise

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        for _ in range(_REWRITES):
            try:
                return self._copy(key, path, sha256)
            except VersionConflict:
                continue  # rewritten between two parts
        raise StoreUnavailable(f"{self._name(key)} was rewritten again and again while it was being copied to {path}")

    def download_memory(self, key: str, target: memoryview) -> None:
        size = len(target)

        def read_patiently(offset: int, part: memoryview) -> None:
            begun = self._read_part(key, offset, len(part))
            found = int(begun[1]["ContentRange"].rpartition("/")[2]) if begun else self.stat(key).size
            if begun is None or found != size:
                raise wrong_size(self._name(key), size, found)
            part[:] = begun[0]

        if size == 0 and (found := self.stat(key).size):
            raise wrong_size(self._name(key), size, found)
        place = self._place(key)
        with self._errors("read", key):
            reader = RangeReader(self._client, place["Bucket"], place["Key"], self._patience.read_timeout)
            fill_memory(reader, target, read_patiently)

    def unfinished_uploads(self) -> Iterator[Upload]:
        """Uploads below the store's prefix that were begun and neither completed nor aborted."""
        with self._errors_at("list unfinished uploads in", f"s3://{self._bucket}/{self._base}"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._base
            )
            for found in (upload for page in pages for upload in page.get("Uploads", [])):
                key = found["Key"].removeprefix(self._base)
                yield Upload(key=key, id=found["UploadId"], begun_at=found["Initiated"].timestamp())

    def abort_upload(self, upload: Upload) -> None:
        """Remove its parts; fine if it is completed or gone."""
        key = self._base + upload.key
        try:
            with self._errors("abort the upload of", upload.key):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload.id)
        except StoreError as error:
            if not (isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchUpload"):
                raise

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:  # which no Range header can say
            self.stat(key)
            return b""
        part = self._read_part(key, offset, length)
        return part[0] if part else b""

    def stream_range(self, key: str, offset: int, length: int, take: Take) -> int:
        place = self._place(key)
        with self._errors("read", key):
            done = self._streams.read(self._client, place["Bucket"], place["Key"], offset, length, take)
        if done < length:
            rest = self.read_range(key, offset + done, length - done)
            take(memoryview(rest))
            done += len(rest)
        return done

    @property
    def _client(self) -> S3Client:
        return self._clients.get()

    def _place(self, key: str) -> _Place:
        return {"Bucket": self._bucket, "Key": self._base + check_key(key)}

    def _name(self, key: str) -> str:
        at = f" at {self._endpoint_url}" if self._endpoint_url else ""
        return f"s3://{self._bucket}/{self._base}{key}{at}"

    def _errors(self, doing: str, key: str) -> AbstractContextManager[None]:
        return self._errors_at(doing, self._name(key))

    @contextmanager
    def _errors_at(self, doing: str, where: str) -> Iterator[None]:
        try:
            with s3_errors_named(doing, where):
                yield
        except StoreError as error:
            if another_login_may_mend(error):
                self._clients.renew()
            raise

    def _put_if(self, key: str, data: bytes, condition: _Condition, lost: StoreError) -> str:
        token = secrets.token_hex(8)
        with self._errors("write", key):
            for attempt in itertools.count(1):
                try:
                    return self._client.put_object(
                        **self._place(key), Body=data, Metadata={"writer": token}, **condition
                    )["ETag"]
                except ClientError as error:
                    code = code_of(error)
                    if code in REFUSED or (code == "NoSuchKey" and "IfMatch" in condition):
                        if (attempt > 1 or was_retried(error)) and (etag := self._own_write(key, "writer", token)):
                            return etag
                        raise lost from error
                    if code != "ConditionalRequestConflict" or attempt >= self._patience.attempts:
                        raise
                    self._pause(attempt)  # S3 could not decide between two writers: nobody won yet
        raise AssertionError("unreachable")

    def _own_write(self, key: str, name: str, value: str) -> str | None:
        """The version, if what lies there is our own write, whose answer was lost."""
        try:
            found = self._client.head_object(**self._place(key))
        except ClientError as error:
            if code_of(error) == "404":
                return None
            raise
        return found["ETag"] if found["Metadata"].get(name) == value else None

    def _read(self, key: str, **part: Any) -> _Answer:
        """The body, or the asked-for part of it, and the answer it came with; begun again if it breaks off halfway."""
        with self._errors("read", key):
            for attempt in itertools.count(1):
                answer = self._client.get_object(**self._place(key), **part)
                try:
                    return answer["Body"].read(), answer
                except _BROKEN_OFF:
                    if attempt >= self._patience.attempts:
                        raise
                    self._pause(attempt)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int) -> None:
        self._clock.sleep(random.uniform(0, 2**attempt / 4))

    def _read_part(self, key: str, offset: int, length: int, **condition: str) -> _Answer | None:
        """None if `offset` is not inside the object."""
        try:
            return self._read(key, Range=f"bytes={offset}-{offset + length - 1}", **condition)
        except StoreError as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in BEYOND_THE_END:
                return None
            raise

    def _copy(self, key: str, path: Path, sha256: str | None) -> None:
        # The first range tells size, checksum and version: a small object costs one request. An empty one has no range.
        begun = self._read_part(key, 0, PART)
        first, answer = begun or self._read(key)
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(first)

        def read(offset: int, length: int) -> bytes:
            part = self._read_part(key, offset, length, IfMatch=answer["ETag"])
            return part[0] if part else b""

        with os_errors_named("write", path), aside(path) as fresh:
            fill_file(fresh, first, size, read)
            expected, found = sha256 or answer["Metadata"].get("sha256"), sha256_of(fresh)
            if expected not in (None, found):
                raise corrupt(self._name(key), str(expected), found)
            fresh.replace(path)

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._errors_at("list", f"s3://{self._bucket}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            found = [entry for page in pages for entry in page.get("Contents", [])]
        # AWS lists in key order, but servers that keep a tree of folders do not.
        infos = sorted(map(self._info, found), key=lambda info: info.key)
        return (info for info in infos if is_key(info.key))

    def _info(self, entry: ObjectTypeDef) -> ObjectInfo:
        return ObjectInfo(
            key=entry["Key"].removeprefix(self._base),
            size=entry["Size"],
            modified_at=entry["LastModified"].timestamp(),
            tag=entry["ETag"],
        )
