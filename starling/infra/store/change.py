"""Writing an object that others may be writing too."""

from __future__ import annotations

from collections.abc import Callable

from starling.infra.errors import ObjectExists, ObjectNotFound, VersionConflict
from starling.infra.store.base import Store

TRIES = 50


def change_object(store: Store, key: str, change: Callable[[bytes | None], bytes]) -> tuple[bytes | None, bytes]:
    """Rewrite an object as it is at that moment (None: there is none); `change` is called again if somebody was
    quicker. Returns what was there and what is there now; nothing is written if that is the same.

    Raises:
        VersionConflict: others were quicker `TRIES` times.
    """
    for _ in range(TRIES):
        try:
            found = store.get(key)
        except ObjectNotFound:
            new = change(None)
            try:
                store.create(key, new)
            except ObjectExists:
                continue
            return None, new
        new = change(found.data)
        try:
            if new != found.data:
                store.replace(key, new, found.version)
        except VersionConflict:
            continue
        return found.data, new
    raise VersionConflict(f"{key} changed {TRIES} times while it was being written; try again")


def first_word(store: Store, key: str, data: bytes) -> bytes:
    """What whoever came first wrote under a key that is written once: `data`, if nobody had."""
    try:
        store.create(key, data)
    except ObjectExists:
        return store.get(key).data
    return data
