"""Finds the newest state any member of a round has, and gives it to all of them.

Every rank offers its node's local copy, rank 0 also the store's newest checkpoint. The newest wins; who lacks it
receives it from the lowest rank that has it. With a survivor in the round nothing is read from the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from starling.infra.store.base import Store
from starling.trainer.checkpoint.load import NoneVerified, load_newest
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import Manifest, committed_steps, set_aside
from starling.trainer.comm import Comm
from starling.trainer.state import TrainingState

SOURCES = ("fresh", "local", "peer", "store")
"""Where a rank's state may come from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """Where a round begins."""

    state: TrainingState | None
    """None: nobody has any state, training starts afresh."""
    source: str
    """One of SOURCES, as this rank got it."""
    last_step: int
    """The last step any member is known to have completed before (-1: none)."""
    stored_step: int
    """The newest committed checkpoint (-1: none)."""


def find_state(
    comm: Comm,
    store: Store,
    prefix: str,
    local: LocalCheckpoints,
    *,
    last_step: int,
    on_skip: Callable[[int, str], None],
) -> Resumed:
    """Agree on the newest state and hold it on every rank.

    Raises:
        PeerLost, StoreError: as they say.
        NoneVerified: there are checkpoints in the store, but no good one, and no member holds a state.
    """
    own = local.load_newest()
    stored = max(committed_steps(store, prefix), default=-1) if comm.rank == 0 else -1
    offers = comm.gather_ints(*_offer(own), stored, last_step)
    newest_local = max(step for step, *_ in offers)
    stored, last = offers[0][2], max(row[3] for row in offers)
    source = "local"
    if stored > newest_local:
        loaded = _newest_in_store(store, prefix, on_skip, newest_local) if comm.rank == 0 else None
        if loaded is not None and loaded[0].step > newest_local:
            own, source = (loaded[0], loaded[1].state_sha256), "store"
        # A damaged newest checkpoint may have sent rank 0 back behind what a member holds: look again.
        offers = comm.gather_ints(*_offer(own), stored, last_step)
    best = max(step for step, *_ in offers)
    if best < 0:
        return Resumed(state=None, source="fresh", last_step=last, stored_step=stored)
    owner = next(rank for rank, (step, *_) in enumerate(offers) if step == best)
    if any(row[:2] != offers[owner][:2] for row in offers):
        has_it = offers[comm.rank][:2] == offers[owner][:2]
        state = _broadcast(comm, own[0] if own and comm.rank == owner else None, owner)
        source = source if has_it else "peer"
    else:
        assert own is not None
        state = own[0]
    return Resumed(state=state, source=source, last_step=last, stored_step=stored)


def _newest_in_store(
    store: Store, prefix: str, on_skip: Callable[[int, str], None], newest_local: int
) -> tuple[TrainingState, Manifest] | None:
    try:
        return load_newest(store, prefix, on_skip)
    except NoneVerified:
        if newest_local < 0:
            raise  # to begin afresh would be to lose the run
        for step in committed_steps(store, prefix):
            if step > newest_local:  # training comes by there again, and must be able to commit it
                set_aside(store, prefix, step)
        return None


def _offer(own: tuple[TrainingState, str] | None) -> tuple[int, int]:
    """(step, first 62 bits of the state's SHA-256): equal offers are equal states."""
    return (own[0].step, int(own[1][:15], 16)) if own else (-1, 0)


def _broadcast(comm: Comm, state: TrainingState | None, owner: int) -> TrainingState:
    header = None
    if state is not None:
        shapes = [[n, list(t.shape), str(t.dtype).removeprefix("torch.")] for n, t in sorted(state.tensors.items())]
        header = json.dumps({"meta": state.meta(), "tensors": shapes}).encode()
    described: dict[str, Any] = json.loads(comm.broadcast_bytes(header, owner))
    tensors: dict[str, torch.Tensor] = {}
    for name, shape, dtype in described["tensors"]:
        empty = torch.empty(shape, dtype=getattr(torch, dtype))
        tensors[name] = state.tensors[name].contiguous() if state is not None else empty
        comm.broadcast_tensor(tensors[name], owner)
    return TrainingState(tensors=tensors, **described["meta"])
