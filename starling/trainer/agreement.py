"""What all ranks must have alike before the first step of a round; each raises on all of them alike."""

from __future__ import annotations

import hashlib

from starling.infra.errors import UsageError
from starling.trainer.comm import Comm
from starling.trainer.task import Samples

ADVICE = "give all nodes the same data, unchanged while they start, and let nothing in the task depend on the rank"


def require_same_content(comm: Comm, sha256: str | None) -> None:
    """Compare what all ranks say identifies the data's content (`Task.data_sha256`). Raises UsageError."""
    fingerprint = int(hashlib.sha256(repr(sha256).encode()).hexdigest()[:15], 16)  # users' need not be hexadecimal
    everyones = [number for [number] in comm.gather_ints(fingerprint)]
    others = [str(rank) for rank, number in enumerate(everyones) if number != everyones[0]]
    if others:
        raise UsageError(
            f"data: not all ranks have the same: the task's data_sha256() differs between rank 0 and rank "
            f"{', '.join(others)}; {ADVICE}"
        )


def require_same_counts(comm: Comm, train: Samples, val: Samples | None) -> None:
    """Compare how many samples all ranks see. Raises UsageError."""
    rows = comm.gather_ints(len(train), len(val) if val is not None else -1)
    for name, counts in zip(("train_samples()", "val_samples()"), zip(*rows, strict=True), strict=True):
        if len(set(counts)) > 1:
            found = ", ".join(f"{_count(count)} on rank {rank}" for rank, count in enumerate(counts))
            raise UsageError(
                f"data: not all ranks have the same: the task's {name} has another length on some: {found}; {ADVICE}"
            )


def _count(count: int) -> str:
    return "None" if count < 0 else str(count)
