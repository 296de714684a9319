"""A group of the size of a small cluster: 28 nodes form, lose three by SIGKILL, take three new ones in, and finish.

Which variant: every node is a process of its own with the real rendezvous, over one folder, and dies by SIGKILL; but
it is forked from one that has imported torch, and its work is not training but counting in step with the others. 28
whole nodes (machine, agent, supervisor, forkserver and worker each) would need some 30 GiB and minutes of importing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from starling.infra.store import Store
from tests.support.counting_node import serve

NODES = 28
LOST = 3
PATIENCE = 240.0


class Cluster:
    """Processes of counting nodes, and what they have written down."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.support.counting_node"])
        self.processes: list[BaseProcess] = []

    def add(self, count: int) -> None:
        for _ in range(count):
            process = self._context.Process(
                target=serve, args=(self._store.uri, str(self._folder), len(self.processes), NODES)
            )
            process.start()
            self.processes.append(process)

    def counting_in(self, world: int) -> set[int]:
        """Ranks that count in a world of this size at present."""
        notes = [path.read_text() for path in self._folder.glob("node-*") if self._lives(path)]
        whole = [note.split() for note in notes if note.endswith("\n")]
        return {int(rank) for size, rank, count in whole if int(size) == world and int(count) > 2}

    def wait_for_world(self, size: int) -> float:
        """Until that many count together; seconds it took."""
        began = time.monotonic()
        while self.counting_in(size) != set(range(size)):
            assert time.monotonic() - began < PATIENCE, f"no world of {size}: only ranks {self.counting_in(size)}"
            time.sleep(0.05)
        return time.monotonic() - began

    def kill(self, numbers: list[int]) -> None:
        for number in numbers:
            self.processes[number].kill()

    def finish(self) -> list[int | None]:
        """Let them end; the exit codes."""
        (self._folder / "finish").touch()
        for process in self.processes:
            process.join(PATIENCE)
        return [process.exitcode for process in self.processes]

    def _lives(self, path: Path) -> bool:
        return self.processes[int(path.name.removeprefix("node-"))].is_alive()


@pytest.fixture
def cluster(folder_store: Store, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(folder_store, tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.join()


def test_twenty_eight_nodes_lose_three_take_three_in_and_finish(cluster: Cluster) -> None:
    cluster.add(NODES)
    formed = cluster.wait_for_world(NODES)
    victims = [0, 11, NODES - 1]
    cluster.kill(victims)
    went_on = cluster.wait_for_world(NODES - LOST)
    cluster.add(LOST)
    took_in = cluster.wait_for_world(NODES)
    print(f"formed in {formed:.1f} s, went on after {went_on:.1f} s, took the new ones in after {took_in:.1f} s")
    codes = cluster.finish()
    assert [codes[number] for number in victims] == [-9] * LOST
    assert {code for number, code in enumerate(codes) if number not in victims} == {0}
    assert len(codes) == NODES + LOST
