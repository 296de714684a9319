"""The manifest: a checkpoint exists exactly when its manifest does, and the manifest is created once.

<prefix><step>/part-<round>-<i>-of-<n>.safetensors    the i-th share of the tensors
<prefix><step>/part-<round>-<i>-of-<n>.json           its size and SHA-256, written after it
<prefix><step>/part-<round>-<i>-of-<n>.failed         instead: why that node could not save its part
<prefix><step>/whole-<node>.safetensors               all tensors, from a node that goes (see handover.py)
<prefix><step>/manifest.json                          created last; lists the parts
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starling.infra.errors import ObjectNotFound
from starling.infra.records import Record
from starling.infra.store.base import Store

MANIFEST, DAMAGED = "manifest.json", "manifest.damaged.json"
_OBJECT = re.compile(r"(\d{10})/([^/]+)")
_PART = re.compile(r"part-(\d+)-")


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
    return f"{prefix}{step:010d}/{MANIFEST}"


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
    return take_inventory(store, prefix).committed


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All objects there are, from one listing."""

    names: dict[int, frozenset[str]]
    """Step -> names of its objects."""

    @property
    def committed(self) -> list[int]:
        """Steps with a manifest, oldest first."""
        return sorted(step for step, names in self.names.items() if MANIFEST in names)

    @property
    def begun(self) -> list[int]:
        """Steps that have parts but no manifest (yet, or any more), oldest first; without those that were set aside."""
        return sorted(step for step, names in self.names.items() if not names & {MANIFEST, DAMAGED})

    @property
    def crowded(self) -> list[int]:
        """Committed steps with parts of more than one attempt, of which only one can have been committed."""
        return [step for step in self.committed if len(set(map(_attempt, self.names[step])) - {""}) > 1]


def take_inventory(store: Store, prefix: str) -> Inventory:
    """One listing of everything under `prefix`."""
    names: dict[int, set[str]] = {}
    for info in store.list(prefix):
        if found := _OBJECT.fullmatch(info.key.removeprefix(prefix)):
            names.setdefault(int(found[1]), set()).add(found[2])
    return Inventory(names={step: frozenset(of_step) for step, of_step in names.items()})


def _attempt(name: str) -> str:
    """What the parts of one attempt to save have in common; empty for manifests."""
    if found := _PART.match(name):
        return found[0]
    return name.partition(".")[0] if name.startswith("whole-") else ""


def read_manifest(store: Store, prefix: str, step: int) -> Manifest:
    """Raises ObjectNotFound, and ValueError if the object is not a manifest."""
    return Manifest.from_bytes(store.get(manifest_key(prefix, step)).data)


def set_aside(store: Store, prefix: str, step: int) -> None:
    """Make a checkpoint that proved damaged uncommitted; what is left of it stays for people to look at."""
    key = manifest_key(prefix, step)
    try:
        store.put(key.removesuffix(MANIFEST) + DAMAGED, store.get(key).data)
    except ObjectNotFound:
        return
    store.delete(key)


def delete_unnamed(store: Store, prefix: str, step: int) -> None:
    """Delete the parts of a committed checkpoint that its manifest does not name: attempts that came to nothing."""
    named = {part.key for part in read_manifest(store, prefix, step).parts}
    named |= {receipt_key(key) for key in named} | {manifest_key(prefix, step)}
    for info in list(store.list(f"{prefix}{step:010d}/")):
        if info.key not in named and not info.key.endswith(DAMAGED):
            store.delete(info.key)


def delete_checkpoint(store: Store, prefix: str, step: int) -> None:
    """The manifest goes first, so that nobody finds a checkpoint whose parts are going."""
    store.delete(manifest_key(prefix, step))
    for info in list(store.list(f"{prefix}{step:010d}/")):
        store.delete(info.key)
