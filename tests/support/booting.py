"""An instance for tests: real user data, executed as a process on this computer, with a metadata service of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from starling.infra import layout
from starling.infra.bootstrap.environment import constraints_sha256
from starling.infra.bootstrap.package import pack_package
from starling.infra.bootstrap.user_data import BootConfig, user_data
from starling.infra.files import write_json
from starling.infra.imds.server import Identity, ImdsServer, RoleCredentials
from starling.infra.processes import kill_all
from starling.infra.records import Market, NodeIntent, NodeState, NodeStatus, Offer, RunRecord
from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store
from tests.integration.nodes.local_nodes import command_line, eventually

RUN = "booted"
NODE = f"{RUN}.0.0"
SUPPORT = Path(__file__).parent
OFFER = Offer(provider="aws", instance_type="c7i.large", zone="us-east-1a", market=Market.SPOT, price_per_hour=0.03)


MARK = "STARLING_BOOTED_IN_TEST"
"""In the environment of every process of the machine, from the first stage of its boot."""


class BootMachine:
    """One instance: a root folder instead of a disk, a file instead of the power switch."""

    def __init__(self, folder: Path, store: Store, s3: S3Server) -> None:
        self.folder = folder
        self.root = folder / "r"
        self.store = store
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(SUPPORT),
            "STARLING_ROOT": str(self.root),
            "STARLING_POWEROFF": f"echo off >> {folder}/power/off",
            "STARLING_SERVICE": "env",
            "STARLING_AGENT_OPTIONS": "--supervisor-module stand_in_supervisor --notice-poll 0.5",
            "STAND_IN": "train",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            MARK: str(folder),
        }
        for name in ("home", "tmp", "cwd", "power", "r"):
            (folder / name).mkdir()
        self.tags = {"starling:node": NODE}
        self._key, self._secret = s3.access_key, s3.secret_key
        self._imds: ImdsServer | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare_run(self, *, gpus: int = 0, **spec: Any) -> None:
        """Put into the store what a controller would have."""
        resolved = {"nodes": {"gpus_per_node": gpus}, "limits": {"stall": 30.0, "idle": 30.0}, **spec}
        self.store.put(layout.spec(RUN, 0), yaml.safe_dump(resolved).encode())
        self.store.put(layout.run_record(RUN), RunRecord(run=RUN, created_at=time.time()).to_bytes())
        intent = NodeIntent(
            node=NODE,
            run=RUN,
            incarnation=0,
            slot=0,
            generation=0,
            offer=OFFER.but(gpus=gpus),
            wanted_at=time.time(),
            authorised_until=None,
        )
        self.store.put(layout.intent(NODE), intent.to_bytes())

    def bring_image(self, python: str = sys.executable) -> None:
        """Pretend that the image was prepared, with this Python."""
        write_json(self.root / "image.json", {"python": python, "constraints_sha256": constraints_sha256()})

    def boot(self, *before: str, package_sha256: str | None = None) -> None:
        """Execute the user data: by its first line, or by the command `before` it."""
        identity = Identity(
            instance_id="i-0123456789abcdef0",
            instance_type=OFFER.instance_type,
            zone=OFFER.zone,
            region="us-east-1",
            address="127.0.0.1",
            market=OFFER.market,
            launched_at=time.time(),
        )
        self._imds = ImdsServer(identity, tags=self.tags, credentials=self._credentials)
        config = BootConfig(
            store_uri=self.store.uri,
            region="us-east-1",
            run=RUN,
            package_sha256=package_sha256 or pack_package(self.store),
        )
        script = self.folder / "user-data"
        script.write_text(user_data(config))
        script.chmod(0o700)
        environment = {**self.environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._imds.endpoint}
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                [*before, str(script)],
                cwd=self.folder / "cwd",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def wait(self, timeout: float = 150.0) -> int:
        """Until the user data's process has ended; its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def wait_training(self) -> None:
        eventually(lambda: self._trains(), "the node trains", 150)

    def shut_down(self) -> None:
        """What the operating system does first when the machine is shut down."""
        assert self._process is not None
        self._process.terminate()

    def announce_interruption(self, taken_at: float) -> None:
        """The metadata service says when the machine will be taken."""
        assert self._imds is not None
        self._imds.post_interruption(taken_at)

    def process(self, module: str) -> psutil.Process:
        """The one below the user data's that runs this module; raises ValueError if there is none."""
        assert self._process is not None
        below = psutil.Process(self._process.pid).children(recursive=True)
        [found] = [process for process in below if ["-m", module] == command_line(process)[1:3]]
        return found

    def tag(self, key: str, value: str) -> None:
        """Tag the running instance."""
        assert self._imds is not None
        self._imds.tag(key, value)

    def put_on_path(self, program: str, script: str) -> Path:
        """A program of ours before all others."""
        place = self.folder / "bin" / program
        place.parent.mkdir(exist_ok=True)
        place.write_text(script)
        place.chmod(0o700)
        self.environment["PATH"] = f"{place.parent}:{self.environment['PATH']}"
        return place

    def outside(self) -> list[Path]:
        """What lies where programs like to leave things, outside the root."""
        return [path for name in ("home", "tmp", "cwd") for path in (self.folder / name).rglob("*")]

    @property
    def powered_off(self) -> bool:
        return (self.folder / "power" / "off").exists()

    @property
    def console(self) -> str:
        return (self.folder / "console").read_text()

    def status(self) -> NodeStatus | None:
        key = layout.status(NODE)
        return NodeStatus.from_bytes(self.store.get(key).data) if list(self.store.list(key)) else None

    def log(self) -> str:
        return "".join(self.store.get(info.key).data.decode() for info in self.store.list(layout.logs(RUN, NODE)))

    def pull_the_plug(self) -> None:
        kill_all({MARK: str(self.folder)})
        if self._process is not None:
            self._process.wait()
        if self._imds is not None:
            self._imds.close()

    def _trains(self) -> bool:
        status = self.status()
        return status is not None and status.state is NodeState.TRAINING

    def _credentials(self) -> RoleCredentials:
        return RoleCredentials(
            role="starling-node",
            access_key=self._key,
            secret_key=self._secret,
            token="",
            expires_at=time.time() + 3600,
        )


@contextmanager
def boot_machine(store: Store, s3: S3Server) -> Iterator[BootMachine]:
    """Its folder has a short path, because sockets lie in it; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="boot-"))
    machine = BootMachine(folder, store, s3)
    try:
        yield machine
    finally:
        machine.pull_the_plug()
        shutil.rmtree(folder)
