"""What a reader is asked to do, what it says about it, and the process in which it does so, turn after turn."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from zlib import crc32


@dataclass(frozen=True, kw_only=True)
class Job:
    """One pass over the images."""

    endpoint: str
    bucket: str
    count: int
    """Images there are."""
    tars: int
    """Into how many tar files they are packed for readers of such."""
    cache: str
    """Folder for what is kept on disk. It may not exist yet, or hold what an earlier pass left."""
    folder: str = ""
    """The images as local files."""
    dataset: str = ""
    """Prefix, in the bucket, of a dataset that Starling prepared."""
    limit: int | None = None
    """Read only so many images; only one-object-a-sample readers can be asked to."""
    start: int = 0
    """Go on in the middle of an epoch of which so many images have been seen."""
    batch: int = 32
    workers: int = 2
    decode: bool = False
    """Hand over batches of pixels (uint8, 512 x 512 x 3) rather than look at the bytes only."""
    verify: bool = False
    """Add up the checksums of all images."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one batch held."""

    images: int
    bytes: int = 0
    checksum: int = 0
    """Sum of the CRC-32 of all images, if it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass gave, and cost."""

    seconds: float
    """From opening the dataset until the last batch."""
    first: float
    """Seconds until the first batch."""
    cpu: float
    """CPU seconds of the reader and its workers."""
    images: int
    bytes: int
    checksum: int


Reader = Callable[[Job], Iterator[Seen]]


def seen(images: Sequence[bytes | memoryview], job: Job) -> Seen:
    """Look at some images' bytes."""
    checksum = sum(map(crc32, images)) if job.verify else 0
    return Seen(images=len(images), bytes=sum(map(len, images)), checksum=checksum)


def play(reader: Reader, job: Job) -> Outcome:
    """One turn."""
    gc.collect()
    cpu, began = _cpu_seconds(), time.perf_counter()
    first = images = read = checksum = 0
    for batch in reader(job):
        first = first or time.perf_counter() - began  # type: ignore[assignment]
        images += batch.images
        read += batch.bytes
        checksum += batch.checksum
    seconds = time.perf_counter() - began
    gc.collect()  # ends the workers that are not yet, and counts their time
    return Outcome(seconds=seconds, first=first, cpu=_cpu_seconds() - cpu, images=images, bytes=read, checksum=checksum)


def serve(reader: Reader) -> None:
    """Take jobs (JSON) from stdin and answer each with one line on stdout, until stdin ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever libraries print is not an answer
        print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
        for line in sys.stdin:
            try:
                answer = asdict(play(reader, Job(**json.loads(line))))
            except Exception as error:  # whatever goes wrong in a peer is the answer, and the other readers go on
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
