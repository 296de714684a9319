"""Saves states off the training thread. The order of effects, each with its reason:

1. local copy on this node's disk   survivors of the next loss reload from it, whatever the store does
2. this node's part to the store    with its checksum; all nodes upload at the same time, each its share
3. the part's receipt               only after the part, so a receipt means a whole part
4. the manifest, created once       by uploader 0 when every receipt is there: from now on the checkpoint exists
5. retention                        only after the commit, so there is never less than before
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from starling.infra.errors import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from starling.infra.store import Store, object_uri
from starling.trainer.checkpoint.files import file_pieces, share
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import (
    Manifest,
    Part,
    delete_checkpoint,
    delete_unnamed,
    failure_key,
    manifest_key,
    part_key,
    receipt_key,
    take_inventory,
)
from starling.trainer.checkpoint.retention import expendable
from starling.trainer.checkpoint.staging import Slot, Staging
from starling.trainer.state import Hashes, TrainingState

log = logging.getLogger(__name__)

QUEUED = 2
"""States that may wait for the disk or the network before saving blocks training; bounds memory."""
PARTS_TIMEOUT = 600.0
"""Seconds to wait for other nodes' parts before a checkpoint is given up; one that says it failed is not waited for."""
TELL_AGAIN = 1.0
"""Seconds between two tries to say so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What every manifest of a round says about where it comes from."""

    run: str
    incarnation: int = 0
    round: int = 0
    """Names the parts: whoever saves a step again, and may not overwrite the parts of last time, counts it up."""
    world_size: int = 1
    steps_per_epoch: int = 0
    """0: there are no epochs, and retention knows no checkpoint that must stay."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    code_sha256: str | None = None
    keep: int = 3
    """Newest checkpoints that stay, beside those at the ends of epochs."""

    def epoch(self, step: int) -> int:
        """Epochs finished at this step."""
        return step // self.steps_per_epoch if self.steps_per_epoch else 0

    def ends_epoch(self, step: int) -> bool:
        return bool(self.steps_per_epoch) and step % self.steps_per_epoch == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A checkpoint that now exists."""

    manifest: Manifest
    uri: str
    seconds: float
    """From the moment the state was handed over."""
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """A copy of a state on its way."""

    state: TrainingState
    slot: Slot
    upload: bool
    since: float


class Saver:
    """One node's saver: `uploader` of `uploaders` equal nodes; uploader 0 commits."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        local: LocalCheckpoints,
        origin: Origin,
        *,
        uploader: int = 0,
        uploaders: int = 1,
        on_commit: Callable[[Commit], None] = lambda commit: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._local = local
        self._origin = origin
        self._uploader = uploader
        self._uploaders = uploaders
        self._on_commit = on_commit
        self._error: Exception | None = None
        self._untold: dict[str, str] = {}
        self._heard: set[str] = set()
        self._staging = Staging(QUEUED + 1)
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def save(self, state: TrainingState, *, upload: bool = True) -> None:
        """Copy a state, to be saved while training goes on. Waits only while `QUEUED` copies are waiting already."""
        since = time.monotonic()
        slot = self._staging.take()
        copy = replace(state, tensors=slot.copy(state.tensors))
        self._queue.put(_Item(state=copy, slot=slot, upload=upload, since=since))

    def flush(self) -> Exception | None:
        """Wait until everything handed over is saved; return what went wrong with the last state, if anything did."""
        self._queue.join()
        return self._error

    def close(self) -> None:
        """Flush and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            step = item.state.step
            try:
                self._save(item.state, item.upload, item.since)
                self._error = None
            except Exception as error:  # any: without this thread, training would wait for ever
                # Training goes on without this checkpoint; whoever needs it asks flush().
                log.warning("checkpoint of step %d was not saved: %s", step, error)
                self._error = error
                if item.upload and self._uploader != 0:
                    key = failure_key(self._part_key(step, self._uploader))
                    self._untold[key] = f"{error} ({secrets.token_hex(4)})"
            finally:
                self._staging.give_back(item.slot)
                self._queue.task_done()
        self._queue.task_done()

    def _next(self) -> _Item | None:
        """The next state. Until there is one: tell the node that waits for our parts that they do not come."""
        while self._untold:
            try:
                for key, why in list(self._untold.items()):
                    self._store.put(key, why.encode())
                    del self._untold[key]
            except StoreError as error:
                log.debug("cannot say yet that a part is missing: %s", error)
                try:
                    return self._queue.get(timeout=TELL_AGAIN)
                except queue.Empty:
                    continue
        return self._queue.get()

    def _save(self, state: TrainingState, upload: bool, since: float) -> None:
        hashes = state.hashes()
        self._local.save(state, hashes.state_sha256)
        if not upload:
            return
        self._upload_part(state)
        if self._uploader == 0:
            self._commit(state, hashes, since)

    def _upload_part(self, state: TrainingState) -> None:
        key = self._part_key(state.step, self._uploader)
        pieces = file_pieces(share(state.tensors, self._uploader, self._uploaders))
        part = Part(key=key, size=sum(map(len, pieces)), sha256=self._store.upload_memory(pieces, key))
        self._store.put(receipt_key(key), part.to_bytes())

    def _commit(self, state: TrainingState, hashes: Hashes, since: float) -> None:
        origin = self._origin
        parts = [self._await_part(state.step, index) for index in range(self._uploaders)]
        manifest = Manifest(
            step=state.step,
            epoch=origin.epoch(state.step),
            epoch_end=origin.ends_epoch(state.step),
            created_at=time.time(),
            run=origin.run,
            incarnation=origin.incarnation,
            round=origin.round,
            world_size=origin.world_size,
            parts=parts,
            meta=state.meta(),
            fingerprint=origin.fingerprint,
            code_sha256=origin.code_sha256,
            exact=state.inexact_since is None,
            weights_sha256=hashes.weights_sha256,
            state_sha256=hashes.state_sha256,
        )
        key = manifest_key(self._prefix, state.step)
        try:
            self._store.create(key, manifest.to_bytes())
        except ObjectExists:
            log.info("step %d had been committed before", state.step)
        size = sum(part.size for part in parts)
        uri = object_uri(self._store.uri, key)
        self._on_commit(Commit(manifest=manifest, uri=uri, seconds=time.monotonic() - since, bytes=size))
        try:
            self._retire(state.step)
        except StoreError as error:  # the checkpoint exists; what stays is removed after the next one
            log.warning("old checkpoints cannot be removed now: %s", error)

    def _await_part(self, step: int, index: int) -> Part:
        key = self._part_key(step, index)
        deadline = time.monotonic() + PARTS_TIMEOUT
        pause = 0.02
        while time.monotonic() < deadline:
            try:
                return Part.from_bytes(self._store.get(receipt_key(key)).data)
            except ObjectNotFound:
                self._look_for_failure(key, index)
                time.sleep(pause)
                pause = min(1.0, pause * 1.5)
        raise StoreUnavailable(f"node {index} of {self._uploaders} did not upload its part of step {step}")

    def _look_for_failure(self, part: str, index: int) -> None:
        """Raises StoreUnavailable once for every time that a node says it could not save this part."""
        try:
            said = self._store.get(failure_key(part))
        except ObjectNotFound:
            return
        if said.version not in self._heard:  # else it is from the try before this one
            self._heard.add(said.version)
            why = said.data.decode(errors="replace")
            raise StoreUnavailable(f"node {index} of {self._uploaders} could not save its part: {why}")

    def _retire(self, newest: int) -> None:
        """Drop what retention lets go, and parts of older steps that were never committed."""
        there = take_inventory(self._store, self._prefix)
        stale = expendable(there.committed, steps_per_epoch=self._origin.steps_per_epoch, keep=self._origin.keep)
        for step in [*stale, *(step for step in there.begun if step < newest)]:
            delete_checkpoint(self._store, self._prefix, step)
        for step in there.crowded:
            if step < newest and step not in stale:
                delete_unnamed(self._store, self._prefix, step)

    def _part_key(self, step: int, index: int) -> str:
        return part_key(self._prefix, step, self._origin.round, index, self._uploaders)
