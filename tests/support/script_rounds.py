"""A script's round as one node sees it, without a rendezvous of real nodes: the test says who is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from starling.infra.store import Store
from starling.infra.store.folder import FolderStore
from starling.trainer.control import Control
from starling.trainer.rendezvous import StoreRendezvous
from starling.trainer.script.job import ScriptJob
from starling.trainer.script.round import Round
from starling.trainer.script.words import Words


@dataclass
class Peers:
    """Stands for the rendezvous."""

    lost: bool = False
    closed: bool = False
    asked: Callable[[], None] = lambda: None
    """Called whenever somebody asks who is lost."""
    members: tuple[Any, ...] = field(default_factory=lambda: (SimpleNamespace(id="a", label="r.0.0"),))

    def round_is_over(self) -> bool:
        self.asked()
        return False

    def lost_members(self) -> frozenset[str]:
        return frozenset({"gone"}) if self.lost else frozenset()

    def set_closed(self) -> None:
        self.closed = True

    def get_run_id(self) -> str:
        return "r"


class FailingStore(FolderStore):
    """Each operation that is named in `fails` raises what it is named with, as often as that list is long."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fails: dict[str, list[Exception]] = {}

    def create(self, key: str, data: bytes) -> str:
        self._fail("create")
        return super().create(key, data)

    def upload(self, path: Path, key: str) -> str:
        self._fail("upload")
        return super().upload(path, key)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        self._fail("download")
        super().download(key, path, sha256)

    def _fail(self, operation: str) -> None:
        if errors := self.fails.get(operation):
            raise errors.pop(0)


def job(folder: Path, *, max_nodes: int = 2, **changes: Any) -> ScriptJob:
    """A node's job; its script saves into `folder/code/out`."""
    given: dict[str, Any] = {
        "run": "r",
        "incarnation": 0,
        "node": "r.0.0",
        "address": "127.0.0.1",
        "store_uri": str(folder / "store"),
        "work_dir": folder / "work",
        "directory": folder / "code",
        "words": (sys.executable,),
        "folder": folder / "code" / "out",
        "every": 0.0,
        "grace": 5.0,
        "keep": 3,
        "settle": 0.0,
        "logs": ("*.log",),
        "min_nodes": 1,
        "max_nodes": max_nodes,
        "ranks_per_node": 1,
    }
    return ScriptJob(**(given | changes))


def round_of(job: ScriptJob, store: Store, peers: Peers, *, rank: int = 0, number: int = 0) -> Round:
    """A round of two nodes, `r.0.0` first. `words.close()` it."""
    return Round(
        number=number,
        node=job.node,
        rank=rank,
        nodes=("r.0.0", "r.1.0"),
        words=Words(store, job.run, job.incarnation, number),
        control=Control(job.work_dir),
        rendezvous=cast(StoreRendezvous, peers),
    )
