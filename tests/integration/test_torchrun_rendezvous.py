"""The rendezvous under plain torchrun, by people who use nothing else of ours: folder and S3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from starling.infra.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "rendezvous.md"
SCRIPT = Path(__file__).with_name("torchrun_script.py")
PATIENCE = 240.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Store], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(store: Store) -> subprocess.Popen[bytes]:
        options = ["--nnodes=1:3", "--nproc-per-node=1", "--max-restarts=20", "--rdzv-backend=starling"]
        options += [f"--rdzv-endpoint={store.uri}", "--rdzv-id=job", "--local-addr=127.0.0.1"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), str(tmp_path)]
        with (tmp_path / f"log-{len(started)}").open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_for(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_nodes_join_are_killed_and_finish(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, start: Callable[[Store], subprocess.Popen[bytes]]
) -> None:
    store = request.getfixturevalue(kind)
    first, second = start(store), start(store)
    wait_for(lambda: all((tmp_path / f"job-2-{rank}").exists() for rank in (0, 1)))
    assert (tmp_path / "job-2-0").read_text().startswith("3 ")
    third = start(store)
    wait_for(lambda: (tmp_path / "job-3-2").exists() and (tmp_path / "pid-0").exists())
    # The node of rank 0: with the c10d rendezvous, losing it ends the job.
    host = int((tmp_path / "pid-0").read_text())
    (tmp_path / "job-2-1").unlink()
    victim = next(process for process in (first, second, third) if process.pid == host)
    victim.kill()
    wait_for(lambda: (tmp_path / "job-2-1").exists())
    (tmp_path / "finish").touch()
    others = [process for process in (first, second, third) if process is not victim]
    assert [process.wait(PATIENCE) for process in others] == [0, 0]
    keys = [info.key for info in store.list("")]
    assert not any(store.get(key).data.startswith(b"\x80") for key in keys), "something pickled lies in the store"


def block(kind: str) -> str:
    """The page's only block of that kind, as it stands there."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def documented(folder_store: Store, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three nodes that run what the page says."""
    (tmp_path / "train.py").write_text(block("python"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "STORE": folder_store.uri, "OMP_NUM_THREADS": "1"}
    environment["TMPDIR"] = str(tmp_path)
    nodes = []
    for number in range(3):
        with (tmp_path / f"node-{number}").open("wb") as log:
            command = ["bash", "-c", f"exec {block('sh')}"]
            nodes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path))
    yield nodes
    for node in nodes:
        kill_node(node)


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """Everything of it, as its machine's end would."""
    if node.poll() is None:
        below = psutil.Process(node.pid).children(recursive=True)
        node.kill()
        for process in below:
            process.kill()
    node.wait()


def test_the_page_tells_what_works(documented: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    def said(what: str) -> list[int]:
        return [n for n in range(3) if re.search(what, (tmp_path / f"node-{n}").read_text())]

    wait_for(lambda: bool(said("on 3 nodes")))
    (first,) = [n for n in said("on 3 nodes") if documented[n].poll() is None]
    kill_node(documented[first])
    others = [node for number, node in enumerate(documented) if number != first]
    assert [node.wait(PATIENCE) for node in others] == [0, 0]
    assert (tmp_path / "step").read_text() == "400"
    assert said("on 2 nodes")
    steps = [int(step) for n in range(3) for step in re.findall(r"step (\d+) on", (tmp_path / f"node-{n}").read_text())]
    assert len(steps) <= 400 + 1, "more than the step of the loss was done twice"
