"""Errors that the emulated cloud answers with on demand: by action, a number of times or for a while."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

MESSAGES = {
    "AccessDenied": "User is not authorized to perform this operation",
    "AuthFailure": "AWS was not able to validate the provided access credentials",
    "ExpiredToken": "The security token included in the request is expired",
    "InternalError": "An internal error has occurred",
    "RequestExpired": "Request has expired.",
    "RequestLimitExceeded": "Request limit exceeded.",
    "UnauthorizedOperation": "You are not authorized to perform this operation.",
    "Unavailable": "The service is unavailable. Please try again shortly.",
}
"""What the commonest ones say; others only name themselves."""


@dataclass(kw_only=True, slots=True)
class Fault:
    """One rule."""

    action: str
    """Of the call, such as CreateFleet; may hold `*`."""
    code: str
    message: str
    times: float = float("inf")
    """How often it strikes yet."""
    until: float = float("inf")
    """When it is over, in the cloud's own time."""
    after: bool = False
    """The call is done all the same; only its answer is lost."""


class Faults:
    """All rules, oldest first; the first that fits decides."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def strike(self, action: str, now: float) -> Fault | None:
        """What this call is to fail with, if anything; counts as one of its times."""
        self._faults = [fault for fault in self._faults if fault.times > 0 and fault.until > now]
        for fault in self._faults:
            if fnmatchcase(action, fault.action):
                fault.times -= 1
                return fault
        return None
