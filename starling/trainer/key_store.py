"""torch.distributed's key-value Store over a starling Store, for the few bootstrap keys of TorchElastic's agents."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import torch.distributed as dist

from starling.infra.errors import ObjectNotFound
from starling.infra.store import Store
from starling.infra.store.change import change_object

POLL = 0.05
"""Seconds between two looks for a key that is awaited."""


class KeyStore(dist.Store):  # type: ignore[misc,name-defined]  # torch does not type its C++ base class
    """Every key is one object; blocking calls poll. Values are opaque bytes and never unpickled."""

    def __init__(self, store: Store, prefix: str, timeout: timedelta = timedelta(seconds=300)) -> None:
        super().__init__()
        self._store = store
        self._prefix = prefix
        self._timeout = timeout

    def set(self, key: str, value: Any) -> None:
        self._store.put(self._key(key), _to_bytes(value))

    def get(self, key: str) -> bytes:
        return self._await([key], self._timeout)[0]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        self._await(keys, timeout or self._timeout)

    def check(self, keys: list[str]) -> bool:
        return all(self._read(key) is not None for key in keys)

    def add(self, key: str, amount: int) -> int:
        """Add to a counter and return its new value."""
        return int(self._change(key, lambda old: str(int(old or b"0") + amount).encode()))

    def compare_set(self, key: str, expected: Any, desired: Any) -> bytes:
        """Set `desired` if the value is `expected` (empty: absent); return the value that is then there."""
        wanted, new = _to_bytes(expected), _to_bytes(desired)
        return self._change(key, lambda old: new if (old or b"") == wanted else old or wanted)

    def append(self, key: str, value: Any) -> None:
        self._change(key, lambda old: (old or b"") + _to_bytes(value))

    def delete_key(self, key: str) -> bool:
        existed = self._read(key) is not None
        self._store.delete(self._key(key))
        return existed

    def num_keys(self) -> int:
        return sum(1 for _ in self._store.list(self._prefix + "/"))

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return self._await(keys, self._timeout)

    def multi_set(self, keys: list[str], values: list[Any]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def has_extended_api(self) -> bool:
        return True

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    @property
    def timeout(self) -> timedelta:
        return self._timeout

    def _await(self, keys: list[str], timeout: timedelta) -> list[bytes]:
        deadline = time.monotonic() + timeout.total_seconds()
        values = {key: self._read(key) for key in keys}
        while missing := [key for key, value in values.items() if value is None]:
            if time.monotonic() > deadline:
                raise dist.DistStoreError(f"timed out after {timeout.total_seconds():.0f} s waiting for {missing}")
            time.sleep(POLL)
            values |= {key: self._read(key) for key in missing}
        return [value for key in keys if (value := values[key]) is not None]

    def _read(self, key: str) -> bytes | None:
        try:
            return self._store.get(self._key(key)).data
        except ObjectNotFound:
            return None

    def _change(self, key: str, change: Callable[[bytes | None], bytes]) -> bytes:
        return change_object(self._store, self._key(key), change)[1]

    def _key(self, key: str) -> str:
        # Keys of TorchElastic hold slashes and anything else; ours allow neither '%' nor '~' nor a leading dot.
        return f"{self._prefix}/k-{quote(key, safe='').replace('%', '=').replace('~', '=7E')}"


def _to_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
