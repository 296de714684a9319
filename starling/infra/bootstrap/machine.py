"""The one seam between a boot and the machine that it happens on: its power, and its service manager.

STARLING_POWEROFF   a shell command that ends the machine
STARLING_SERVICE    words before a command that run it as a service: they return 0 once it runs for itself, or stay with
                    it to its end; `env` runs it in the foreground

Both have defaults for a real machine with systemd. The emulated region sets them, so that no laptop is powered off.
"""

from __future__ import annotations

import os
import shlex
from typing import NoReturn

from starling.infra.bootstrap.stage0 import BootError
from starling.infra.bootstrap.stage0 import power_off as power_off

STOP_SECONDS = 150
"""What a node is given to drain at a shutdown; EC2 pulls the plug of a spot instance two minutes after its notice."""

SYSTEMD = (
    *("systemd-run", "--unit=starling-agent", "--collect"),
    # Only the agent's keeper gets SIGTERM at a shutdown, and while the network is still up.
    *("--property=KillMode=mixed", f"--property=TimeoutStopSec={STOP_SECONDS}"),
    "--property=After=network-online.target",
    # A worker that runs out of memory is the run's affair; systemd would end the whole service.
    "--property=OOMPolicy=continue",
    *("--property=TasksMax=infinity", "--property=LimitNOFILE=1048576", "--property=LimitMEMLOCK=infinity"),
    *("--property=StandardOutput=journal+console", "--property=StandardError=inherit"),
    # However the service ends, and be it killed: no service, no machine.
    "--property=ExecStopPost=/sbin/shutdown -h now",
)


def become_service(command: list[str]) -> NoReturn:
    """Replace this process by one that runs `command` as a service. Raises BootError if that cannot be started."""
    given = os.environ.get("STARLING_SERVICE")
    words = [*(shlex.split(given) if given else SYSTEMD), *command]
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise BootError(f"the service cannot be started: {words[0]}: {error.strerror}") from error
