"""Loads the newest good checkpoint from the store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starling.infra.errors import ObjectCorrupt, ObjectNotFound
from starling.infra.store.base import Store
from starling.trainer.checkpoint.files import DamagedFile, read_tensors
from starling.trainer.checkpoint.manifest import Manifest, Part, committed_steps, read_manifest, set_aside
from starling.trainer.state import TrainingState

log = logging.getLogger(__name__)

PARALLEL_PARTS = 8


def load_newest(
    store: Store, prefix: str, scratch: Path, on_skip: Callable[[int, str], None]
) -> tuple[TrainingState, Manifest] | None:
    """The newest committed checkpoint whose every byte is what was saved; None if there is none.

    A damaged or incomplete one is passed over: `on_skip(step, reason)` is called and the one before it is tried. Its
    manifest is set aside, so that it no longer counts and the step can be committed anew.
    """
    for step in reversed(committed_steps(store, prefix)):
        try:
            manifest = read_manifest(store, prefix, step)
            return load_checkpoint(store, manifest, scratch), manifest
        except (ObjectCorrupt, ObjectNotFound, DamagedFile, ValueError) as error:
            log.warning("checkpoint of step %d is damaged, trying the one before it: %s", step, error)
            on_skip(step, str(error))
            set_aside(store, prefix, step)
    return None


def load_checkpoint(store: Store, manifest: Manifest, scratch: Path) -> TrainingState:
    """Download and verify one checkpoint. Raises ObjectCorrupt, ObjectNotFound, DamagedFile."""
    folder = scratch / f"load-{manifest.step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            files = list(pool.map(lambda part: _fetch(store, part, folder), manifest.parts))
        tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        state = TrainingState(tensors=tensors, **manifest.meta)
    except TypeError as error:
        raise DamagedFile(f"the manifest of step {manifest.step} lacks a part of the state: {error}") from error
    if state.state_sha256() != manifest.state_sha256:
        raise DamagedFile(f"the state of step {manifest.step} does not have the SHA-256 its manifest names")
    return state


def _fetch(store: Store, part: Part, folder: Path) -> Path:
    path = folder / part.key.rpartition("/")[2]
    store.download(part.key, path, part.sha256)
    return path
