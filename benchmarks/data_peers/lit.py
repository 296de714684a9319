"""litdata: chunks, downloaded whole into a folder of the node by obstore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import litdata
from litdata.streaming import downloader

from benchmarks.data_peers.loading import batches, collate
from benchmarks.data_peers.turn import Job, Seen

PREFIX = "lit"

# It has no way to ask its obstore client for plain http, and a server on loopback speaks nothing else.
downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


def write(images: list[Path], folder: Path, chunk_bytes: int) -> None:
    """Write the dataset into a new folder."""
    inputs = [str(path) for path in images]
    litdata.optimize(_sample, inputs, str(folder), chunk_bytes=chunk_bytes, num_workers=1, verbose=False)


def read(job: Job) -> Iterator[Seen]:
    """One epoch, shuffled in its usual way."""
    Path(job.cache).mkdir(parents=True, exist_ok=True)
    dataset = litdata.StreamingDataset(
        f"s3://{job.bucket}/{PREFIX}",
        cache_dir=job.cache,
        shuffle=True,
        drop_last=False,
        storage_options={"endpoint_url": job.endpoint},
    )
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=job.batch, num_workers=job.workers, collate_fn=collate(job), shuffle=None
    )
    if job.start:
        loader.load_state_dict(_state_at(dataset, job))
    yield from batches(loader)


def _state_at(dataset: litdata.StreamingDataset, job: Job) -> dict[str, object]:
    """What the loader's `state_dict` would be after so many samples of the first epoch."""
    dataset.set_epoch(1)
    return {
        "dataset": dataset.state_dict(job.start, job.workers, job.batch),
        "current_epoch": 1,
        "num_samples_yielded": job.start,
        "latest_worker_idx": (job.start // job.batch - 1) % job.workers,
    }


def _sample(path: str) -> bytes:
    return Path(path).read_bytes()
