"""The manifest: a checkpoint exists exactly when its manifest does, and the manifest is created once.

<prefix><step>/part-<round>-<i>-of-<n>.safetensors    the i-th share of the tensors
<prefix><step>/part-<round>-<i>-of-<n>.json           its size and SHA-256, written after it
<prefix><step>/part-<round>-<i>-of-<n>.failed         instead: why that node could not save its part
<prefix><step>/whole-<node>.safetensors               all tensors, from a node that goes (see handover.py)
<prefix><step>/manifest.json                          created last; lists the parts
"""

from __future__ import annotations

import re
from typing import Any

from starling.infra.errors import ObjectNotFound
from starling.infra.records import Record
from starling.infra.store.base import Store

_OBJECT = re.compile(r"(\d{10})/([^/]+)")


class Part(Record):
    """One uploaded share of a checkpoint."""

    key: str
    size: int
    sha256: str


class Manifest(Record):
    """What a committed checkpoint consists of and where it comes from."""

    step: int
    epoch: int
    """Epochs finished at this step."""
    epoch_end: bool
    created_at: float
    run: str
    incarnation: int
    round: int
    world_size: int
    parts: list[Part]
    meta: dict[str, Any]
    """`TrainingState.meta()`."""
    fingerprint: dict[str, Any]
    code_sha256: str | None
    exact: bool
    weights_sha256: str
    state_sha256: str


def manifest_key(prefix: str, step: int) -> str:
    return f"{prefix}{step:010d}/manifest.json"


def part_key(prefix: str, step: int, round_number: int, index: int, count: int) -> str:
    return f"{prefix}{step:010d}/part-{round_number}-{index}-of-{count}.safetensors"


def whole_key(prefix: str, step: int, node: str) -> str:
    """The only part of a checkpoint that one node commits alone, when it goes."""
    return f"{prefix}{step:010d}/whole-{node}.safetensors"


def receipt_key(part: str) -> str:
    """Where a part's size and checksum are announced."""
    return part.removesuffix(".safetensors") + ".json"


def failure_key(part: str) -> str:
    """Where a node says that it could not save its part, so that nobody waits for it."""
    return part.removesuffix(".safetensors") + ".failed"


def committed_steps(store: Store, prefix: str) -> list[int]:
    """Steps of all committed checkpoints, oldest first: the one place that says what counts as committed."""
    return committed_and_begun(store, prefix)[0]


def committed_and_begun(store: Store, prefix: str) -> tuple[list[int], list[int]]:
    """Steps with a manifest, and steps that have parts but no manifest (yet, or any more); each oldest first."""
    begun: set[int] = set()
    committed: set[int] = set()
    for info in store.list(prefix):
        if found := _OBJECT.fullmatch(info.key.removeprefix(prefix)):
            (committed if found[2] == "manifest.json" else begun).add(int(found[1]))
    return sorted(committed), sorted(begun - committed)


def read_manifest(store: Store, prefix: str, step: int) -> Manifest:
    """Raises ObjectNotFound, and ValueError if the object is not a manifest."""
    return Manifest.from_bytes(store.get(manifest_key(prefix, step)).data)


def set_aside(store: Store, prefix: str, step: int) -> None:
    """Make a checkpoint that proved damaged uncommitted; what is left of it stays for people to look at."""
    key = manifest_key(prefix, step)
    try:
        store.put(key.replace("manifest.json", "manifest.damaged.json"), store.get(key).data)
    except ObjectNotFound:
        return
    store.delete(key)


def delete_checkpoint(store: Store, prefix: str, step: int) -> None:
    """The manifest goes first, so that nobody finds a checkpoint whose parts are going."""
    store.delete(manifest_key(prefix, step))
    for info in list(store.list(f"{prefix}{step:010d}/")):
        store.delete(info.key)
