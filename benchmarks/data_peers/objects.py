"""One object a sample: with s3fs, and with boto3 in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import s3fs
from botocore.config import Config
from torch.utils.data import Dataset

from benchmarks.data_peers.loading import load
from benchmarks.data_peers.turn import Job, Seen

THREADS = 8
"""Of each worker."""


def read_with_s3fs(job: Job) -> Iterator[Seen]:
    """`open(...).read()` of every sample."""
    return load(_WithS3fs(job), job)


def read_with_boto3(job: Job) -> Iterator[Seen]:
    """`get_object` of a batch's samples, several at a time."""
    return load(_WithBoto3(job), job)


def _key(index: int) -> str:
    return f"objects/{index:05}.jpg"


class _WithS3fs(Dataset[bytes]):
    def __init__(self, job: Job) -> None:
        self._job = job
        self._files: dict[int, s3fs.S3FileSystem] = {}
        """By process: it is not fork-safe."""

    def __getitem__(self, index: int) -> bytes:
        pid = os.getpid()
        if pid not in self._files:
            self._files[pid] = s3fs.S3FileSystem(endpoint_url=self._job.endpoint, skip_instance_cache=True)
        with self._files[pid].open(f"{self._job.bucket}/{_key(index)}") as file:
            content: bytes = file.read()
        return content


class _WithBoto3(Dataset[bytes]):
    def __init__(self, job: Job) -> None:
        self._job = job
        self._clients: dict[int, tuple[Any, ThreadPoolExecutor]] = {}
        """By process."""

    def __getitem__(self, index: int) -> bytes:
        raise NotImplementedError("whole batches only")

    def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
        client, pool = self._client()
        return list(pool.map(lambda index: self._get(client, index), indices))

    def _client(self) -> tuple[Any, ThreadPoolExecutor]:
        pid = os.getpid()
        if pid not in self._clients:
            config = Config(max_pool_connections=THREADS)
            client = boto3.client("s3", endpoint_url=self._job.endpoint, config=config)
            self._clients[pid] = client, ThreadPoolExecutor(THREADS)
        return self._clients[pid]

    def _get(self, client: Any, index: int) -> bytes:
        content: bytes = client.get_object(Bucket=self._job.bucket, Key=_key(index))["Body"].read()
        return content
