"""One emulated machine: its folder, its devices, its metadata service, and the keeper process that runs it.

<instances>/<id>/user-data     what it boots
                 console.log   what that printed
                 keeper.log    how it went
                 bin/          what its PATH begins with: nvidia-smi, if its type has GPUs
                 root/         STARLING_ROOT, with the image.json of a prebuilt image
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

from starling.infra.imds.client import ENDPOINT_VARIABLE
from starling.infra.imds.server import Identity, ImdsServer, RoleCredentials
from starling.infra.processes import kill_all
from starling.infra.region import nvidia_smi
from starling.infra.region.cloud import MachineView, Warned
from starling.infra.region.keeper import CONSOLE, MACHINE, POWERED_OFF, POWEROFF, USER_DATA
from starling.infra.region.machines import gpus

ADDRESS = "127.0.0.1"
"""Of every machine, as its metadata service and so its agent tell it: what EC2 calls its address leads nowhere here."""
CREDENTIALS_SECONDS = 6 * 3600.0
CUT_SECONDS = 10.0
"""How long a keeper may take to end its machine before the hypervisor does it."""
CONSOLE_BYTES = 64 << 10
"""EC2 keeps as much of a console's end."""


class Guest:
    """A machine that is on, from its construction until `off` or until it ends itself. Not thread-safe."""

    def __init__(
        self, view: MachineView, folder: Path, *, environment: dict[str, str], access: tuple[str, str]
    ) -> None:
        """`environment`: what leads its processes to the region. `access`: key and secret that its role gives."""
        self.id = view.id
        self.folder = folder
        self._told = Warned()
        folder.mkdir(parents=True, mode=0o700)
        self._imds = ImdsServer(_identity(view), tags=view.tags, credentials=lambda: _credentials(view, access))
        _install_devices(folder, view)
        if view.user_data is not None:
            script = folder / USER_DATA
            script.write_text(view.user_data)
            script.chmod(0o700)
        self._keeper = self._start({**environment, ENDPOINT_VARIABLE: self._imds.endpoint})

    def tell(self, warned: Warned) -> None:
        """Pass on what the cloud announces."""
        if warned.taken_at is not None and self._told.taken_at is None:
            self._imds.post_interruption(warned.taken_at)
        if warned.rebalance_at is not None and self._told.rebalance_at is None:
            self._imds.post_rebalance(warned.rebalance_at)
        self._told = warned

    @property
    def ended(self) -> bool:
        """Whether it is off: it powered itself off, or its keeper was killed."""
        return self._keeper.poll() is not None

    @property
    def ended_itself(self) -> bool:
        return self._keeper.poll() == POWERED_OFF

    def cut(self) -> None:
        """Take the power away; returns at once."""
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()

    def off(self) -> None:
        """Leave no process of it; what it wrote stays."""
        self.cut()
        try:
            self._keeper.wait(CUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        if self._keeper.returncode < 0:  # killed, by us or by somebody else, before it could finish
            kill_all({MACHINE: str(self.folder)})
        self._imds.close()

    def console(self) -> str:
        try:
            return (self.folder / CONSOLE).read_bytes()[-CONSOLE_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "keeper.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "starling.infra.region.keeper", str(self.folder)],
                cwd=self.folder,
                env={**_environment(self.folder), **environment, MACHINE: str(self.folder)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _environment(folder: Path) -> dict[str, str]:
    """Of a freshly booted machine: nothing of the region's user comes in."""
    python = Path(sys.executable).parent
    return {
        "PATH": os.pathsep.join([str(folder / "bin"), str(python), os.defpath, "/usr/local/bin"]),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        # Where Starling was not installed but is run from its folder.
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "STARLING_ROOT": str(folder / "root"),
        "STARLING_POWEROFF": f"touch {shlex.quote(str(folder / POWEROFF))}",
        "STARLING_SERVICE": "env",
    }


def _install_devices(folder: Path, view: MachineView) -> None:
    (folder / "root").mkdir()
    (folder / "bin").mkdir()
    (folder / "root" / "image.json").write_text(json.dumps(_image()))
    count, model, memory = gpus(view.type)
    if count == 0:
        return
    listed = [{"uuid": f"GPU-{uuid.uuid4()}", "name": model, "memory": memory} for _ in range(count)]
    command = shlex.join([sys.executable, "-I", nvidia_smi.__file__, json.dumps(listed)])
    script = folder / "bin" / "nvidia-smi"
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o700)


def _image() -> dict[str, str]:
    """A prebuilt image that has everything: this very Python."""
    from starling.infra.bootstrap.environment import constraints_sha256

    return {"python": sys.executable, "constraints_sha256": constraints_sha256()}


def _identity(view: MachineView) -> Identity:
    return Identity(
        instance_id=view.id,
        instance_type=view.type,
        zone=view.zone,
        region=view.zone[:-1],
        address=ADDRESS,
        market=view.market,
        launched_at=view.launched_at,
    )


def _credentials(view: MachineView, access: tuple[str, str]) -> RoleCredentials:
    """The S3 server knows one user, and no session tokens."""
    return RoleCredentials(
        role=view.profile or "none",
        access_key=access[0],
        secret_key=access[1],
        token="",
        expires_at=time.time() + CREDENTIALS_SECONDS,
    )
