"""Rehearses store trouble in processes that run already: a file of rules that every one of them watches.

`STARLING_STORE_FAULTS=/path/rules.json` in the environment of a command makes every store that it, its controller and
its nodes open a FaultyStore, whose rules are those in the file, now and whenever the file changes. No file: no faults.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from starling.infra.errors import UsageError
from starling.infra.files import write_atomically
from starling.infra.store.faults import FaultRule

FAULTS = "STARLING_STORE_FAULTS"
"""Environment variable that names the file."""

_RULES = TypeAdapter(list[FaultRule])

_Stamp = tuple[int, int, int]


class FaultFile:
    """The reading side; the writing side is `write_rules`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None

    def news(self) -> list[FaultRule] | None:
        """The rules, if the file has changed since the last call; None if it has not. Raises UsageError."""
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        return [] if stamp is None else read_rules(self._path)

    def _look(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def write_rules(path: Path, rules: Iterable[FaultRule]) -> None:
    """Have these rules, and no others, hit every store that watches `path`, from its next operation on."""
    write_atomically(path, _RULES.dump_json(list(rules), indent=1))


def read_rules(path: Path) -> list[FaultRule]:
    """Raises UsageError if the file holds no list of rules."""
    try:
        return _RULES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise UsageError(f"{FAULTS}: {path} is no list of fault rules: {error.errors()[0]['msg']}") from error


def fault_file() -> FaultFile | None:
    """The file that the environment names, if it names one."""
    path = os.environ.get(FAULTS)
    return FaultFile(Path(path)) if path else None
