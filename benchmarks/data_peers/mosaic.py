"""mosaicml-streaming: MDS shards, downloaded whole into a folder of the node."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.data_peers.loading import batches, collate
from benchmarks.data_peers.turn import Job, Seen

# It imports torchvision, which beside a CPU build of torch fails over two operators that nobody declared.
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
if torch.version.cuda is None:
    for _name in ("nms", "qnms"):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import streaming  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402

PREFIX = "mds"
atexit.register(clean_stale_shared_memory)  # else it stays until the machine is switched off


def write(images: list[Path], folder: Path, shard_bytes: int) -> None:
    """Write the dataset into a new folder."""
    with streaming.MDSWriter(out=str(folder), columns={"image": "bytes"}, size_limit=shard_bytes) as writer:
        for path in images:
            writer.write({"image": path.read_bytes()})


def read(job: Job) -> Iterator[Seen]:
    """One epoch, shuffled in its usual way."""
    os.environ["S3_ENDPOINT_URL"] = job.endpoint
    clean_stale_shared_memory()  # of the last turn
    dataset = _Images(remote=f"s3://{job.bucket}/{PREFIX}", local=job.cache, batch_size=job.batch, shuffle=True)
    if job.start:
        dataset.load_state_dict(dataset.state_dict(job.start, from_beginning=True) | {"epoch": 0})
    # Forked workers would share the connection over which the index was read, and get each other's answers.
    dataset.streams[0]._downloader.clean_up()
    yield from batches(DataLoader(dataset, job.batch, num_workers=job.workers, collate_fn=collate(job)))


class _Images(streaming.StreamingDataset):  # type: ignore[misc]
    """Samples are bytes, as with all the other readers."""

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(at)["image"]
