"""The hardware of one emulated machine: `python -m starling.infra.region.keeper FOLDER`, started by the hypervisor.

It runs the machine's user data, adopts whatever that leaves behind, and lives until the machine's power goes: because
the machine powered itself off (a file says so), or because the hypervisor closed our standard input, which also happens
when the region dies, however it dies. Then every process of the machine is killed.

Processes are known by `MACHINE` in their environment, and by descent.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from pathlib import Path

from starling.infra.logs import log_to_stderr
from starling.infra.processes import become_subreaper, kill_all, reap

MACHINE = "STARLING_MACHINE"
"""Environment variable of every process of an emulated machine; its value is the machine's folder."""
POWERED_OFF = 0
"""Exit code: the machine ended itself."""
CUT_OFF = 3
"""Exit code: its power was cut."""
TICK_SECONDS = 0.1

USER_DATA = "user-data"
POWEROFF = "poweroff"
CONSOLE = "console.log"

_log = logging.getLogger("starling.keeper")


def main() -> int:
    log_to_stderr()
    folder = Path(sys.argv[1])
    become_subreaper()
    if (folder / USER_DATA).exists():
        _boot(folder)
    reason = _watch(folder)
    killed = kill_all({MACHINE: str(folder)}, below=os.getpid())
    reap()
    _log.info("off (%s); %d processes killed", "by itself" if reason == POWERED_OFF else "power cut", killed)
    return reason


def _boot(folder: Path) -> None:
    """As cloud-init does it: the user data is a script with an interpreter in its first line."""
    console = (os.POSIX_SPAWN_OPEN, 1, str(folder / CONSOLE), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    script = str(folder / USER_DATA)
    try:
        os.posix_spawn(
            script,
            [script],
            os.environ,
            file_actions=[nothing, console, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
        )
    except OSError as error:  # a machine whose user data is no script boots all the same, and idles
        _log.error("the user data cannot be run: %s", error)


def _watch(folder: Path) -> int:
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], TICK_SECONDS)
        reap()
        if (folder / POWEROFF).exists():
            return POWERED_OFF
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return CUT_OFF


if __name__ == "__main__":
    sys.exit(main())
