"""Stage 1 of a node's boot: `python3 -m starling.infra.bootstrap.install`, run by stage 0.

0. See to it that a reboot ends the machine: nobody would start the agent again.
1. Check the GPUs, if the machine was bought for them: a sick machine is not worth installing on.
2. Take the Python environment that the image brings, or make one.
3. Check torch's CUDA against the driver.
4. Write `agent.sh`, which runs the agent with everything set, and become the service that runs it.

SIGTERM, which stage 0 passes on: the machine is shut down. The store learns it, and whether AWS takes the machine.

Runs on Python 3.8, with nothing but the standard library; writes nothing outside ROOT but step 0's one script.
"""

from __future__ import annotations

import calendar
import hashlib
import http.client
import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from starling.infra import layout
from starling.infra.agent.gpus import complaint
from starling.infra.bootstrap.driver import cuda_version, driver_complaint, driver_version
from starling.infra.bootstrap.environment import environment_python
from starling.infra.bootstrap.interface import talking_interface
from starling.infra.bootstrap.machine import become_service, power_off_at_reboot
from starling.infra.bootstrap.stage0 import (
    REPORTED,
    ROOT,
    SHUT_DOWN,
    BootError,
    BootLog,
    Bucket,
    Report,
    describe,
    metadata,
)

MAX_ROOT = 70
"""Characters of ROOT's path: temporary files lie below it, sockets among them, whose paths have 107 at most."""
INSTALL_SECONDS = 600.0
"""For all of the installation together. With all else that a boot does it stays below stage 0's BOOT_SECONDS."""
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Never written to disk: a node has its role's."""


class ShutDown(BaseException):
    """Whatever goes on is given up; no error of it."""


def main() -> int:
    boot: dict[str, str] = json.loads(os.environ["STARLING_BOOT"])
    os.set_inheritable(int(os.environ.pop("STARLING_BOOTING")), False)  # so it closes when we become the service
    log = BootLog(ROOT)
    report = Report(boot, log)
    signal.signal(signal.SIGTERM, shut_down)
    try:
        script = install(boot, log, Bucket(boot))
        report.ship_log()
        become_service(["/bin/sh", str(script)])
    except ShutDown:
        log.say(SHUT_DOWN)
        report.ended(SHUT_DOWN, unfit=False, notice=interruption_notice())
    except Exception as error:  # whatever it is: without an agent this machine serves nobody, and costs
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # stage 0 would say the rest
        log.say(f"cannot boot: {describe(error)}", "ERROR")
        report.ended(f"could not boot: {describe(error)}")
    return REPORTED


def shut_down(*_: object) -> None:
    """Handler of SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise ShutDown


def interruption_notice() -> dict[str, Any] | None:
    """A `records.Notice`, if AWS has announced that it takes this machine, like the one that agents make of it
    (`starling/infra/imds/notices.py`, which an old Python cannot run). No answer that makes sense: None."""
    try:
        told = json.loads(metadata("meta-data/spot/instance-action") or "null")
        at = float(calendar.timegm(time.strptime(told["time"], "%Y-%m-%dT%H:%M:%SZ")))
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return None
    known_by = hashlib.sha256(f"interruption {at:.0f}".encode()).hexdigest()[:16]
    return {"id": known_by, "kind": "interruption", "seen_at": time.time(), "takes_effect_at": at}


def install(boot: dict[str, str], log: BootLog, bucket: Bucket) -> Path:
    """Make everything ready; return the script that runs the agent. Raises BootError and what was not foreseen."""
    if len(str(ROOT)) > MAX_ROOT:
        raise BootError(f"STARLING_ROOT has {len(str(ROOT))} characters, {MAX_ROOT} is the most: {ROOT}")
    power_off_at_reboot(boot["instance_id"])
    os.environ.update(folders(ROOT))
    gpus = int(json.loads(bucket.get(layout.intent(boot["node"])))["offer"]["gpus"])
    if (problem := complaint(min(gpus, 1))) is not None:  # how many must be well the agent knows, from the spec
        raise BootError(problem)
    python = environment_python(ROOT, log, INSTALL_SECONDS)
    if gpus > 0:
        check_driver(str(python), log)
    interface = talking_interface(boot["address"])
    log.say(f"nodes talk through {interface or 'whatever the libraries choose'}")
    script = ROOT / "agent.sh"
    settings = agent_settings(dict(os.environ), python, boot["region"], interface)
    script.touch(mode=0o700)
    script.write_text(agent_script(settings, python))
    log.say("starting the agent")
    return script


def folders(root: Path) -> dict[str, str]:
    """Where programs put what they keep for themselves. Makes these folders."""
    places = {"HOME": root / "home", "TMPDIR": root / "tmp", "PIP_CACHE_DIR": root / "cache" / "pip"}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {name: str(place) for name, place in places.items()}


def check_driver(python: str, log: BootLog) -> None:
    """Raises BootError if torch's CUDA needs a newer driver."""
    driver, cuda = driver_version(), cuda_version(python)
    if cuda is None:
        log.say("the machine has GPUs, but its torch is built without CUDA: it computes on the CPU", "WARNING")
    elif (problem := driver_complaint(driver, cuda)) is not None:
        raise BootError(problem)
    else:
        log.say(f"NVIDIA driver {driver}, torch for CUDA {cuda}")


def agent_settings(environment: dict[str, str], python: Path, region: str, interface: str | None) -> dict[str, str]:
    """The agent's environment: ours, and what it needs on top; what somebody has set on purpose stays."""
    added = {
        "AWS_DEFAULT_REGION": region,
        # botocore asks for the role's credentials once, for a second; a metadata service that is busy takes longer.
        "AWS_METADATA_SERVICE_TIMEOUT": "5",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "10",
    }
    if interface is not None:
        # Without the "=", NCCL takes the name for the beginning of one:
        # https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname
        added.update(NCCL_SOCKET_IFNAME=f"={interface}", GLOO_SOCKET_IFNAME=interface)
    path = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    kept = {name: value for name, value in environment.items() if name not in CREDENTIALS}
    return {**added, **kept, "PATH": path, "STARLING_HOME": str(ROOT)}


def agent_script(settings: dict[str, str], python: Path) -> str:
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in sorted(settings.items())
        if re.fullmatch(r"[A-Za-z_]\w*", name)
    ]
    command = f"exec {shlex.quote(str(python))} -m starling.infra.bootstrap.service"
    return "\n".join(["#!/bin/sh", "# Runs this node's agent; written at boot.", *exports, command, ""])


if __name__ == "__main__":
    sys.exit(main())
