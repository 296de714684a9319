"""What a node that goes still owes the store: a state on its disk that is newer than every committed checkpoint.

Rounds commit at their end, so there is such a state only if the node goes in between: asked to while the next round
forms (newcomers are let in after a save on disks only), or after its last round was broken. If all nodes go then, their
disks go with them.
"""

from __future__ import annotations

import json
import logging
import time

from starling.infra import layout
from starling.infra.errors import ObjectExists
from starling.infra.journal import Journal
from starling.infra.records import EventKind, Progress
from starling.infra.store import Store, object_uri
from starling.infra.supervision import PROGRESS
from starling.trainer.checkpoint.files import file_pieces
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import (
    Manifest,
    Part,
    committed_steps,
    delete_checkpoint,
    manifest_key,
    read_manifest,
    whole_key,
)
from starling.trainer.config import Job
from starling.trainer.round import RoundInfo
from starling.trainer.state import TrainingState

log = logging.getLogger(__name__)

HEAD_START = 1.0
"""Seconds that a node leaves to each one before it in rank order: their copies are the same, and one is enough."""
LONGEST_WAIT = 3.0


def hand_over(store: Store, job: Job) -> int | None:
    """Commit this node's newest copy if the store has none as new; returns its step if it did. Raises StoreError."""
    local, prefix = LocalCheckpoints(job.work_dir / "checkpoints"), layout.checkpoints(job.run)
    newest = max(local.steps(), default=-1)
    if newest <= max(committed_steps(store, prefix), default=-1):
        return None
    round_info = RoundInfo.read(job.work_dir)
    time.sleep(min(LONGEST_WAIT, round_info.node_rank * HEAD_START))
    copy = local.load_newest()
    if copy is None or copy[0].step <= max(committed_steps(store, prefix), default=-1):
        return None
    _commit(store, job, round_info, *copy)
    return copy[0].step


def _commit(store: Store, job: Job, round_info: RoundInfo, state: TrainingState, state_sha256: str) -> None:
    """The whole state as one part, under a name of this node's own, then the manifest."""
    began = time.monotonic()
    prefix = layout.checkpoints(job.run)
    key = whole_key(prefix, state.step, job.node)
    pieces = file_pieces(state.tensors)
    part = Part(key=key, size=sum(map(len, pieces)), sha256=store.upload_memory(pieces, key))
    manifest = _manifest(store, job, round_info, state, state_sha256, part)
    committed = manifest_key(prefix, state.step)
    try:
        store.create(committed, manifest.to_bytes())
    except ObjectExists:
        log.info("step %d was committed by another node at this moment", state.step)
        if key not in {named.key for named in read_manifest(store, prefix, state.step).parts}:
            store.delete(key)
        return
    if max(committed_steps(store, prefix)) > state.step:
        # The others went on and committed; whoever did may have taken this part for one that nobody commits.
        log.info("the others have committed a later step than %d", state.step)
        delete_checkpoint(store, prefix, state.step)
        return
    seconds = time.monotonic() - began
    Journal(store, job.run).write(
        EventKind.CHECKPOINT,
        str(state.step),
        f"step {state.step} committed in {seconds:.2f} s by {job.node}, which goes",
        step=state.step,
        seconds=seconds,
        bytes=part.size,
        uri=object_uri(store.uri, committed),
    )


def _manifest(
    store: Store, job: Job, round_info: RoundInfo, state: TrainingState, state_sha256: str, part: Part
) -> Manifest:
    progress = Progress.from_bytes((job.work_dir / PROGRESS).read_bytes())
    steps_per_epoch = progress.total_steps // job.training.epochs
    return Manifest(
        step=state.step,
        epoch=state.step // steps_per_epoch,
        epoch_end=state.step % steps_per_epoch == 0,
        created_at=time.time(),
        run=job.run,
        incarnation=job.incarnation,
        round=round_info.number,
        world_size=progress.world_size,
        parts=[part],
        meta=state.meta(),
        # Of the node that began the run; had this one another, the state would say since when it is inexact.
        fingerprint=json.loads(store.get(layout.fingerprint(job.run)).data),
        code_sha256=job.code_sha256,
        exact=state.inexact_since is None,
        weights_sha256=state.weights_sha256(),
        state_sha256=state_sha256,
    )
