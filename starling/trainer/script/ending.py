"""The end of a script's round on one node: SIGTERM, a grace period, SIGKILL, and what is known of its folder then."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starling.infra.snapshots.listing import Listing
from starling.trainer.script.keeper import Keeper
from starling.trainer.script.processes import ScriptProcesses
from starling.trainer.script.trust import Ending

ALONE_SECONDS = 3.0
"""For scripts of a broken round to end by themselves, before they are killed."""
SAVING_SECONDS = 10.0
"""SIGTERM waits at most so long, and half of the grace period, for a file that is being written."""
LEAST_UPLOAD_SECONDS = 5.0
LEAST_GRACE_SECONDS = 0.5


def grace_seconds(within: float | None, upload_seconds: float, grace: float) -> float:
    """How long scripts may take to end. `within`: seconds until the node that leaves is taken, of which twice what the
    last upload took is kept for the next one."""
    if within is None:
        return grace
    reserve = min(within / 2, max(LEAST_UPLOAD_SECONDS, 2 * upload_seconds))
    return max(LEAST_GRACE_SECONDS, min(grace, within - reserve))


@dataclass(frozen=True, kw_only=True, slots=True)
class WritersSeen:
    """The last look at who writes in the folder, while the script ran: a dead process' open files cannot be seen."""

    at: float
    """Seconds since the epoch."""
    written: str | None


def end_processes(processes: ScriptProcesses, keeper: Keeper, until: float | None, seen: WritersSeen | None) -> Ending:
    """End everything the script started. `until`: SIGTERM, and time to end until then (by `time.monotonic`), but
    `LEAST_GRACE_SECONDS` in any case; None: no signal, as the round is broken or done. What the folder did is looked
    at only with `seen`, which is on the node of rank 0."""
    folder, logs, leads = keeper.job.folder, keeper.job.logs, seen is not None
    if leads and until is not None:
        _let_save(processes, keeper, min(SAVING_SECONDS, (until - time.monotonic()) / 2))
    elif leads and processes.finished():
        _let_save(processes, keeper, max(SAVING_SECONDS, keeper.job.grace))  # nobody is in a hurry
    before = keeper.look() if leads else Listing()
    began = time.time()
    written_before = processes.writes(folder, logs) if leads else None
    newest = before.newest_change(logs)
    # One may have failed without having been asked: as the scripts of other nodes heard SIGTERM a little earlier, say.
    failed = processes.failed()
    if seen is not None and failed:
        written_before = written_before or _last_written(seen, newest)
    if until is None:
        processes.wait(ALONE_SECONDS)
    else:
        processes.terminate()
        processes.wait(max(LEAST_GRACE_SECONDS, until - time.monotonic()))
    codes = tuple(processes.exit_codes().values())
    written_last = processes.writes(folder, logs) if leads else None
    processes.kill()
    after = keeper.look() if leads else Listing()
    return Ending(
        asked=until is not None and not failed,
        exit_codes=codes,
        quiet=began - newest[0] if newest is not None else None,
        written_before=written_before,
        written_last=written_last,
        changed=before.difference(after, logs),
    )


def _last_written(seen: WritersSeen, newest: tuple[float, str] | None) -> str | None:
    """What a process that is dead by now may have been writing: what it was seen to, or what changed since then."""
    changed_since = newest[1] if newest is not None and newest[0] >= seen.at else None
    return seen.written or changed_since


def _let_save(processes: ScriptProcesses, keeper: Keeper, seconds: float) -> None:
    """A handler that raises would leave half of a file that is being written just now."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and processes.writes(keeper.job.folder, keeper.job.logs) is not None:
        time.sleep(0.1)
