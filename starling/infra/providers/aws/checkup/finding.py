"""What one check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from starling.infra.errors import StarlingError


class Health(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Some runs are in trouble, or will be."""
    FAIL = "fail"
    """No run can work."""
    SKIPPED = "skipped"
    """It needs something that another check did not find."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of `starling doctor`."""

    name: str
    health: Health
    says: str
    fix: str | None = None
    """What to do; None if all is well, or `says` tells it: our errors do."""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Findings in order. A check that cannot be made is itself a finding, with the error's own advice."""
    for name, check in checks:
        try:
            yield from check()
        except StarlingError as error:
            yield Finding(name=name, health=Health.FAIL, says=str(error))


def ok(name: str, says: str) -> Finding:
    return Finding(name=name, health=Health.OK, says=says)


def warn(name: str, says: str, fix: str) -> Finding:
    return Finding(name=name, health=Health.WARN, says=says, fix=fix)


def fail(name: str, says: str, fix: str) -> Finding:
    return Finding(name=name, health=Health.FAIL, says=says, fix=fix)
