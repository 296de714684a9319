"""Where a chaos run plays: a home, a store and a spec of its own, and a user who types `starling` commands there."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from chaos.flaky_proxy import flaky_proxy
from chaos.schedule import NODES
from chaos.trouble import FolderTrouble, ProxyTrouble, StoreTrouble
from starling.infra.files import write_atomically
from starling.infra.processes import HOME
from starling.infra.region.s3_server import s3_server
from starling.infra.store import Store, open_store
from starling.infra.store.fault_file import FAULTS

RUN = "chaos"
EVERY_STEPS = 10
"""Steps between two checkpoints."""
STEPS_PER_EPOCH = 26
COMMAND_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One run's surroundings. Everything of it lies below `folder`, its temporary files included."""

    folder: Path
    store_uri: str
    """What the run's processes use."""
    store: Store
    """The same objects, without the trouble."""
    trouble: StoreTrouble
    environment: dict[str, str]
    epochs: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "t"

    @property
    def total_steps(self) -> int:
        return self.epochs * STEPS_PER_EPOCH

    def brake(self, seconds: float) -> None:
        """From now on every shard takes so many seconds longer."""
        write_atomically(self.folder / "brake", str(seconds).encode())

    def write_spec(self) -> Path:
        path = self.folder / "chaos.yaml"
        path.write_text(yaml.safe_dump(spec(self.folder / "brake", self.epochs)))
        return path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Type a command; its output is collected."""
        return subprocess.Popen(
            [sys.executable, "-m", "starling.cli", *words, "--store", self.store_uri],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command and wait for its end."""
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, None)


def spec(brake: Path, epochs: int) -> dict[str, Any]:
    """What chaos trains, as a user would write it."""
    return {
        "name": "chaos",
        "task": {"name": "probe:Probe", "options": {"brake": str(brake)}},
        "code": str(Path(__file__).parent / "probe"),
        "training": {
            "epochs": epochs,
            "global_batch": 16,
            "virtual_shards": 8,
            "seed": 3,
            "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 5, "final_factor": 0.1},
            "clip_norm": 1.0,
        },
        "checkpoint": {"every_steps": EVERY_STEPS, "every_minutes": None, "keep": 2},
        "nodes": {"min": 1, "max": NODES},
    }


@contextmanager
def folder_scene(epochs: int, below: Path | None = None) -> Iterator[Scene]:
    """A scene whose store is a folder; nothing of it is left afterwards."""
    with _folder(below) as folder:
        faults = folder / "faults.json"
        uri = str(folder / "store")
        environment = _environment(folder) | {FAULTS: str(faults)}
        yield Scene(
            folder=folder,
            store_uri=uri,
            store=open_store(uri),
            trouble=FolderTrouble(faults),
            environment=environment,
            epochs=epochs,
        )


@contextmanager
def s3_scene(epochs: int, below: Path | None = None) -> Iterator[Scene]:
    """A scene with an S3 server of its own, behind a proxy that makes trouble when asked."""
    with _folder(below) as folder, s3_server(folder) as server, _in_environment(server.environment):
        direct = server.new_bucket()
        upstream = urlsplit(server.endpoint_url)
        with flaky_proxy((str(upstream.hostname), int(upstream.port or 0))) as proxy:
            yield Scene(
                folder=folder,
                store_uri=direct.replace(server.endpoint_url, proxy.endpoint_url),
                store=open_store(direct),
                trouble=ProxyTrouble(proxy),
                environment=_environment(folder) | server.environment,
                epochs=epochs,
            )


def _environment(folder: Path) -> dict[str, str]:
    left_out = ("STARLING_STORE", FAULTS, "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {HOME: str(folder / "home"), "TMPDIR": str(folder / "t")}


@contextmanager
def _folder(below: Path | None) -> Iterator[Path]:
    # Short: sockets lie below it, and their paths are bounded.
    folder = (below or Path(tempfile.gettempdir())).resolve() / f"chaos-{secrets.token_hex(4)}"
    (folder / "t").mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    """The store's client takes its credentials from this process' environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
