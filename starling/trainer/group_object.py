"""The group's one object in the store: read often, parsed when it has changed, written only over what was read."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from starling.infra.errors import ObjectExists, ObjectNotFound, VersionConflict
from starling.infra.store import Store
from starling.trainer.rendezvous_state import Group

log = logging.getLogger(__name__)


class GroupObject:
    """Thread-safe. Methods raise StoreError."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._parsed: tuple[str, Group] | None = None

    def read(self, afresh: Group) -> tuple[Group, str | None]:
        """The group and its version; `afresh` stands for one that is lost (version None) or damaged."""
        try:
            found = self._store.get(self._key)
        except ObjectNotFound:
            return afresh, None
        parsed = self._parsed
        if parsed is not None and parsed[0] == found.version:
            return parsed[1], found.version
        try:
            group = Group.from_bytes(found.data)
        except ValueError as error:
            log.warning("the group's object is damaged, beginning afresh: %s", error)
            return afresh, found.version
        self._parsed = found.version, group
        return group, found.version

    def write(self, group: Group, version: str | None) -> bool:
        """Write over what was read; False if somebody was quicker."""
        try:
            if version is None:
                self._store.create(self._key, group.to_bytes())
            else:
                self._store.replace(self._key, group.to_bytes(), version)
        except (ObjectExists, VersionConflict):
            return False
        return True

    def update(self, change: Callable[[Group], Group], afresh: Group) -> None:
        """Change it, however many others do so at the same time."""
        longest = 0.05
        while True:
            group, version = self.read(afresh)
            changed = change(group)
            if changed == group or self.write(changed, version):
                return
            time.sleep(random.uniform(0, longest))
            longest = min(2 * longest, 5.0)
