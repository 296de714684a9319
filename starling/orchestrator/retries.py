"""When to ask a provider again for what it could not do. A memory; losing it is harmless."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starling.infra.errors import CredentialsExpired, Misconfigured, NotAuthorised, ProviderError

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
USER_SECONDS = 60.0
"""For what only the user can put right."""
LOGIN_SECONDS = 15.0
"""For credentials that have expired: whoever has logged in does not want to wait long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """One thing that could not be done."""

    error: ProviderError
    times: int
    """In a row."""
    after: float
    """When to try again."""
    since: float
    """When errors of this kind began."""
    at: float
    """When it failed last."""

    @property
    def lasted(self) -> float:
        """For how many seconds it is known to have failed with nothing but this kind of error."""
        return self.at - self.since


class Retries:
    """What failed last time it was tried, by name."""

    def __init__(self) -> None:
        self._failed: dict[str, Failed] = {}

    def failed(self, what: str, error: ProviderError, now: float) -> None:
        before = self._failed.get(what)
        times = before.times + 1 if before is not None else 1
        since = before.since if before is not None and type(before.error) is type(error) else now
        after = now + pause_after(error, times)
        self._failed[what] = Failed(error=error, times=times, after=after, since=since, at=now)

    def succeeded(self, what: str) -> None:
        self._failed.pop(what, None)

    def keep_only(self, names: Collection[str]) -> None:
        """The rest is no longer wanted."""
        self._failed = {what: failed for what, failed in self._failed.items() if what in names}

    def may(self, what: str, now: float) -> bool:
        return what not in self._failed or now >= self._failed[what].after

    @property
    def after(self) -> Mapping[str, float]:
        """What failed -> when to try it again."""
        return {what: failed.after for what, failed in self._failed.items()}

    def lasting(self, kind: type[ProviderError]) -> Mapping[str, float]:
        """What fails with this kind of error, and since when with no other."""
        return {what: failed.since for what, failed in self._failed.items() if isinstance(failed.error, kind)}

    def of(self, what: str) -> list[Failed]:
        """How it failed, if it did."""
        return [self._failed[what]] if what in self._failed else []

    @property
    def all(self) -> list[Failed]:
        return [*self._failed.values()]


def pause_after(error: ProviderError, times: int) -> float:
    """Seconds until the next try, after so many failed ones in a row."""
    if isinstance(error, NotAuthorised | Misconfigured):
        return USER_SECONDS
    if isinstance(error, CredentialsExpired):
        return LOGIN_SECONDS
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(times - 1, 10))
