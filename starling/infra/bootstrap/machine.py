"""The one seam between a boot and the machine that it happens on: its power, its service manager, and its reboots.

STARLING_POWEROFF   a shell command that ends the machine
STARLING_SERVICE    words before a command that run it as a service: they return 0 once it runs for itself, or stay with
                    it to its end; `env` runs it in the foreground

Both have defaults for a real machine with systemd. The emulated region sets them, so that no laptop is powered off.
Where STARLING_POWEROFF is set, nothing is left for a reboot either.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import NoReturn

from starling.infra.bootstrap.stage0 import POWEROFF, BootError
from starling.infra.bootstrap.stage0 import power_off as power_off

PER_BOOT = Path("/var/lib/cloud/scripts/per-boot")
"""cloud-init runs what lies here at every boot, before user data at an instance's first:
https://docs.cloud-init.io/en/latest/reference/modules.html#scripts-per-boot"""
INSTANCE_ID = Path("/var/lib/cloud/data/instance-id")
"""Where cloud-init keeps the id of the instance that it finds itself on."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

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


def power_off_at_reboot(instance_id: str, folder: Path = PER_BOOT) -> None:
    """After a reset or a panic neither user data nor the service runs again: have cloud-init end the machine then.

    Does nothing on a machine without cloud-init, and none where STARLING_POWEROFF is set.
    """
    if os.environ.get("STARLING_POWEROFF") or not folder.is_dir():
        return
    script = folder / "starling-power-off"
    script.touch(mode=0o700)
    script.write_text(reboot_script(instance_id, BOOT_ID.read_text().strip(), POWEROFF))


def reboot_script(instance_id: str, boot_id: str, power_off: str, known: Path = INSTANCE_ID) -> str:
    """Ends the machine if this is another boot of the same instance; an image made of its disk boots in peace."""
    return f"""#!/bin/sh
# By Starling: this instance was a node. After a reboot it is none, has been replaced, and would cost for nothing.
[ "$(cat {known})" = {shlex.quote(instance_id)} ] || exit 0
[ "$(cat {BOOT_ID})" != {shlex.quote(boot_id)} ] || exit 0
echo "starling: {instance_id} was rebooted; it powers off"
{power_off}
"""
