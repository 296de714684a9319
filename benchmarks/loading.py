"""Ways to get a state back from S3: ours, and s3fs. Each with a client that has not spoken to the server before."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import s3fs
import safetensors.torch
import torch

from benchmarks.saving import Place
from starling.infra.store import open_store
from starling.trainer.checkpoint.load import load_newest
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import Manifest
from starling.trainer.checkpoint.saver import Origin, Saver
from starling.trainer.memory import big_memory, bytes_of
from starling.trainer.state import TrainingState

Tensors = dict[str, torch.Tensor]
Loaded = Tensors | torch.Tensor | bytes
OURS, OURS_ONLY = "Starling", "Starling, bytes only"
S3FS, S3FS_ONLY, S3FS_WHOLE = "s3fs, verified, as tensors", "s3fs, bytes only: open", "s3fs, bytes only: cat_file"
LOCAL = "torch.load, local file"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One checkpoint in the store, and the same tensors in a local file of torch.save's."""

    place: Place
    prefix: str
    manifest: Manifest
    local: Path


def store_state(place: Place, name: str, tensors: Tensors) -> Stored:
    """Put tensors there, to be loaded."""
    prefix = f"runs/{name}/checkpoints/"
    commits: list[Manifest] = []
    copies = LocalCheckpoints(place.disk / f"copies-{name}")
    saver = Saver(
        open_store(place.uri),
        prefix,
        copies,
        Origin(run=name),
        on_commit=lambda commit: commits.append(commit.manifest),
    )
    saver.save(TrainingState(step=1, tensors=tensors, scaler={}, schedule={}))
    error = saver.flush()
    saver.close()
    if error is not None:
        raise error
    local = place.disk / f"{name}.pt"
    torch.save(tensors, local)
    return Stored(place=place, prefix=prefix, manifest=commits[0], local=local)


def ways_to_load(stored: Stored) -> dict[str, Callable[[], Loaded]]:
    """By name."""
    return {
        OURS: lambda: _ours(stored),
        OURS_ONLY: lambda: _our_bytes(stored),
        S3FS: lambda: _s3fs_verified(stored),
        S3FS_ONLY: lambda: _s3fs(stored),
        S3FS_WHOLE: lambda: _s3fs_whole(stored),
        LOCAL: lambda: _local(stored),
    }


def seconds_of(load: Callable[[], Loaded]) -> float:
    began = time.perf_counter()
    loaded = load()
    seconds = time.perf_counter() - began
    del loaded  # before the next one asks for memory
    return seconds


def _ours(stored: Stored) -> Tensors:
    def skipped(step: int, reason: str) -> None:
        raise AssertionError(f"step {step} was passed over: {reason}")

    loaded = load_newest(open_store(stored.place.uri), stored.prefix, skipped)
    assert loaded is not None
    return loaded[0].tensors


def _our_bytes(stored: Stored) -> torch.Tensor:
    (part,) = stored.manifest.parts
    memory = big_memory(part.size)
    open_store(stored.place.uri).download_memory(part.key, bytes_of(memory))
    return memory


def _s3fs_verified(stored: Stored) -> Tensors:
    content = _s3fs(stored)
    if hashlib.sha256(content).hexdigest() != stored.manifest.parts[0].sha256:
        raise AssertionError("s3fs read something else than was written")
    return safetensors.torch.load(content)


def _s3fs(stored: Stored) -> bytes:
    """As one stream."""
    with _s3_files(stored).open(_path(stored)) as file:
        content: bytes = file.read()
    return content


def _s3fs_whole(stored: Stored) -> bytes:
    """In ranges, several at once."""
    content: bytes = _s3_files(stored).cat_file(_path(stored))
    return content


def _s3_files(stored: Stored) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(endpoint_url=stored.place.endpoint_url, skip_instance_cache=True)


def _path(stored: Stored) -> str:
    return f"{stored.place.bucket}/store/{stored.manifest.parts[0].key}"


def _local(stored: Stored) -> Tensors:
    with io.FileIO(stored.local) as file:
        tensors: Tensors = torch.load(file, weights_only=True)
    return tensors
