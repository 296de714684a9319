"""Loads the newest good checkpoint from the store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from starling.infra.errors import ObjectCorrupt, ObjectNotFound
from starling.infra.store.base import Store
from starling.infra.store.checksums import corrupt, wrong_size
from starling.trainer.checkpoint.files import DamagedFile, tensors_in
from starling.trainer.checkpoint.manifest import Manifest, Part, committed_steps, read_manifest, set_aside
from starling.trainer.memory import all_cores, big_memory, bytes_of
from starling.trainer.state import TrainingState

log = logging.getLogger(__name__)

PARALLEL_PARTS = 8
TRIES = 3
"""Fetches that come damaged before a checkpoint is passed over."""


class NoneVerified(ObjectCorrupt):
    """There are checkpoints, but not one of them is what its manifest says."""


def load_newest(
    store: Store, prefix: str, on_skip: Callable[[int, str], None] = lambda step, reason: None
) -> tuple[TrainingState, Manifest] | None:
    """The newest committed checkpoint whose every byte is what was saved; None if there is none.

    A damaged or incomplete one is passed over: `on_skip(step, reason)` is called and the one before it is tried. When
    that one proves good, the manifests of those after it are set aside, so that they no longer count and their steps
    can be committed anew.

    Raises:
        NoneVerified: not one is good. All stay as they are, as it may be the reader that is broken.
    """
    damaged: list[int] = []
    reason = ""
    for step in reversed(committed_steps(store, prefix)):
        try:
            manifest = read_manifest(store, prefix, step)
            found = _load_patiently(store, manifest), manifest
        except (ObjectCorrupt, ObjectNotFound, DamagedFile, ValueError) as error:
            log.warning("checkpoint of step %d is damaged, trying the one before it: %s", step, error)
            on_skip(step, str(error))
            damaged.append(step)
            reason = reason or str(error)
            continue
        for later in damaged:
            set_aside(store, prefix, later)
        return found
    if damaged:
        raise NoneVerified(
            f"none of the {len(damaged)} checkpoints under {prefix} can be verified on this machine; they were left as "
            f"they are. The newest, of step {damaged[0]}: {reason}"
        )
    return None


def _load_patiently(store: Store, manifest: Manifest) -> TrainingState:
    """What is damaged in the store is damaged again; what was cut on its way is not."""
    for _ in range(TRIES - 1):
        try:
            return load_checkpoint(store, manifest)
        except (ObjectCorrupt, DamagedFile) as error:
            log.warning("checkpoint of step %d came damaged, fetching it again: %s", manifest.step, error)
    return load_checkpoint(store, manifest)


def load_checkpoint(store: Store, manifest: Manifest) -> TrainingState:
    """Download one checkpoint into memory and verify it. Raises ObjectCorrupt, ObjectNotFound, DamagedFile."""
    with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
        files = list(pool.map(lambda part: _fetch(store, part), manifest.parts))
    try:
        tensors = {name: tensor for file in files for name, tensor in tensors_in(file).items()}
        state = TrainingState(tensors=tensors, **manifest.meta)
        intact = state.hashes(all_cores()).state_sha256 == manifest.state_sha256
    except (DamagedFile, TypeError) as error:
        _name_damaged_parts(files, manifest)
        raise DamagedFile(f"the manifest of step {manifest.step} does not describe a state: {error}") from error
    if not intact:
        _name_damaged_parts(files, manifest)
        raise DamagedFile(f"the state of step {manifest.step} does not have the SHA-256 its manifest names")
    return state


def _fetch(store: Store, part: Part) -> torch.Tensor:
    size = store.stat(part.key).size  # so that a damaged manifest cannot make us take all memory
    if size != part.size:
        raise wrong_size(part.key, part.size, size)
    memory = big_memory(size)
    store.download_memory(part.key, bytes_of(memory))
    return memory


def _name_damaged_parts(files: list[torch.Tensor], manifest: Manifest) -> None:
    """The state's hash covers every byte that matters, but does not tell where the damage is. Raises ObjectCorrupt."""
    for file, part in zip(files, manifest.parts, strict=True):
        found = hashlib.sha256(bytes_of(file)).hexdigest()
        if found != part.sha256:
            raise corrupt(part.key, part.sha256, found)
