"""Ways to save the state of a training loop: ours and what one would use instead, over a folder and over S3.

Each promises the same at the end: the state is in the store, and would survive a power cut of this machine (files are
synced; an S3 server answers once it has the object).
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import boto3.session
import torch
import torch.distributed as dist
from boto3.s3.transfer import TransferConfig
from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from starling.infra.store import open_store
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.saver import Origin, Saver
from starling.trainer.state import capture

Steps = Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where to save."""

    uri: str
    """As `open_store` takes it."""
    disk: Path
    """A folder on this machine's disk."""

    @property
    def on_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @property
    def bucket(self) -> str:
        return urlsplit(self.uri).netloc

    @property
    def endpoint_url(self) -> str:
        return parse_qs(urlsplit(self.uri).query)["endpoint_url"][0]


class Way(Protocol):
    """One way to save. `save` returns when training may go on; `done` tells whether the state is in the store."""

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None: ...

    def done(self) -> bool: ...


class Ours:
    """Saver, as the trainer uses it: a local copy, the upload, the manifest."""

    def __init__(self, place: Place) -> None:
        self._committed = threading.Event()
        self._saver = Saver(
            open_store(place.uri),
            "runs/ours/checkpoints/",
            LocalCheckpoints(place.disk / "copies"),
            Origin(run="ours", keep=1),
            on_commit=lambda _: self._committed.set(),
        )

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._committed.clear()
        self._saver.save(capture(step, model, optimizer))

    def done(self) -> bool:
        return self._committed.is_set()

    def close(self) -> None:
        self._saver.close()


class TorchSave:
    """torch.save, then (on S3) an upload in parallel parts with boto3."""

    def __init__(self, place: Place) -> None:
        self._place = place
        if place.on_s3:
            session = boto3.session.Session()
            self._client = session.client("s3", region_name="us-east-1", endpoint_url=place.endpoint_url)

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        state = _state(model, optimizer)
        if self._place.on_s3:
            content = io.BytesIO()
            torch.save(state, content)
            content.seek(0)
            self._client.upload_fileobj(
                content, self._place.bucket, "torch.pt", Config=TransferConfig(max_concurrency=8)
            )
            return
        path = self._place.disk / "torch.pt"
        with path.with_suffix(".new").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)

    def done(self) -> bool:
        return True


class DistributedCheckpoint:
    """torch.distributed.checkpoint, sync or async; the async one with staging memory that it keeps."""

    def __init__(self, place: Place, *, background: bool) -> None:
        self._background = background
        self._place = place
        self._name = "dcp-async" if background else "dcp-sync"
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
            )
        )
        self._future: Any = None

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        state = _state(model, optimizer)
        if self._background:
            self._future = async_save(state, storage_writer=self._writer(step), async_stager=self._stager)
        else:
            save(state, storage_writer=self._writer(step))

    def _writer(self, step: int) -> FileSystemWriter:
        if not self._place.on_s3:
            return FileSystemWriter(self._place.disk / self._name / str(step))
        options: dict[str, Any] = {"endpoint_url": self._place.endpoint_url}
        return FsspecWriter(f"s3://{self._place.bucket}/{self._name}/{step}", **options)

    def done(self) -> bool:
        if self._future is None or not self._future.done():
            return self._future is None
        self._future.result()
        return True


@contextmanager
def all_ways(place: Place) -> Iterator[dict[str, Way]]:
    """By name; ours first."""
    ours = Ours(place)
    with ExitStack() as stack:
        stack.callback(ours.close)
        stack.enter_context(_process_group(place.disk))
        yield {
            "Starling": ours,
            "torch.save": TorchSave(place),
            "distributed.checkpoint": DistributedCheckpoint(place, background=False),
            "distributed.checkpoint, async": DistributedCheckpoint(place, background=True),
        }


@contextmanager
def _process_group(folder: Path) -> Iterator[None]:
    """Of this process alone: saving in the background asks for one."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
