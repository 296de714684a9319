"""webdataset: tar files, streamed through curl."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import boto3
import webdataset
from torch.utils.data import DataLoader

from benchmarks.data_peers.loading import batches, collate
from benchmarks.data_peers.turn import Job, Seen

PREFIX = "tars"
SHUFFLED = 256
"""Samples in the buffer in which it shuffles."""


def read(job: Job) -> Iterator[Seen]:
    """One epoch: shards shuffled, then samples in a buffer. It keeps nothing on disk unless asked to."""
    pipeline = webdataset.WebDataset(_urls(job), shardshuffle=job.tars, empty_check=False)
    samples = pipeline.shuffle(SHUFFLED).to_tuple("jpg").map(lambda sample: sample[0])
    yield from batches(DataLoader(samples, job.batch, num_workers=job.workers, collate_fn=collate(job)))


def _urls(job: Job) -> list[str]:
    client = boto3.client("s3", endpoint_url=job.endpoint)
    places = ({"Bucket": job.bucket, "Key": f"{PREFIX}/{i:05}.tar"} for i in range(job.tars))
    urls = (client.generate_presigned_url("get_object", Params=place) for place in places)
    return [f"pipe:curl -sf {shlex.quote(url)}" for url in urls]
