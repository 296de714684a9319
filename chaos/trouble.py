"""Windows of store trouble: opened and closed while a run uses the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from chaos import flaky_proxy
from chaos.flaky_proxy import FlakyProxy
from chaos.schedule import Trouble
from starling.infra.store.fault_file import write_rules
from starling.infra.store.faults import Fault, FaultRule

TIMEOUT_SECONDS = 4.0
LATE_SECONDS = 1.0
WRITES = ("put", "create", "replace", "delete", "upload")

Window = tuple[Trouble, float]
"""What, and the share of the operations that it hits."""


class StoreTrouble(Protocol):
    """How a kind of store is brought into trouble."""

    def set(self, windows: list[Window]) -> None:
        """From now on exactly these windows are open."""
        ...


class FolderTrouble:
    """Through the file of rules that every process of the run watches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, windows: list[Window]) -> None:
        write_rules(self._path, [rule for window in windows for rule in folder_rules(*window)])


class ProxyTrouble:
    """Through the proxy before the S3 server."""

    def __init__(self, proxy: FlakyProxy) -> None:
        self._proxy = proxy

    def set(self, windows: list[Window]) -> None:
        self._proxy.clear()
        for trouble, share in windows:
            for method, settings in proxy_scripts(trouble):
                self._proxy.play(method=method, times=None, probability=share, **settings)


def folder_rules(trouble: Trouble, share: float) -> list[FaultRule]:
    """The rules of one kind of trouble."""
    fault, operations, seconds = {
        Trouble.ERRORS: (Fault.UNAVAILABLE, ("*",), 0.0),
        Trouble.THROTTLING: (Fault.UNAVAILABLE, ("*",), 0.0),
        Trouble.TIMEOUTS: (Fault.TIMEOUT, ("*",), TIMEOUT_SECONDS),
        Trouble.SLOW: (Fault.SLOW, ("*",), LATE_SECONDS),
        Trouble.LOST_ANSWERS: (Fault.LOST_ANSWER, WRITES, 0.0),
        Trouble.TORN_UPLOADS: (Fault.TORN, ("upload",), 0.0),
        Trouble.TRUNCATED_DOWNLOADS: (Fault.TRUNCATED, ("download",), 0.0),
        Trouble.GONE: (Fault.UNAVAILABLE, ("*",), 0.0),
    }[trouble]
    # A file that comes damaged again and again is damaged, and its checkpoint is rightly passed over.
    times = 2 if fault is Fault.TRUNCATED else None
    return [
        FaultRule(fault=fault, operation=operation, times=times, probability=share, seconds=seconds)
        for operation in operations
    ]


def proxy_scripts(trouble: Trouble) -> list[tuple[str, dict[str, Any]]]:
    """(method, the rest of a Script) for one kind of trouble."""
    kinds = flaky_proxy.Trouble
    match trouble:
        case Trouble.ERRORS:
            return [("*", {"trouble": kinds.ANSWER, "status": 500, "code": "InternalError"})]
        case Trouble.THROTTLING:
            return [("*", {"trouble": kinds.ANSWER, "status": 503, "code": "SlowDown"})]
        case Trouble.TIMEOUTS:
            return [("*", {"trouble": kinds.HANG, "seconds": TIMEOUT_SECONDS})]
        case Trouble.SLOW:
            return [("*", {"trouble": kinds.SLOW, "seconds": LATE_SECONDS})]
        case Trouble.LOST_ANSWERS:
            return [(method, {"trouble": kinds.LOSE_ANSWER}) for method in ("PUT", "POST", "DELETE")]
        case Trouble.TORN_UPLOADS:
            return [("PUT", {"trouble": kinds.TEAR})]
        case Trouble.TRUNCATED_DOWNLOADS:
            return [("GET", {"trouble": kinds.CUT})]
        case Trouble.GONE:
            return [("*", {"trouble": kinds.RESET})]
