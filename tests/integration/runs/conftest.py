"""Whole runs through the public commands, in a home of their own; nothing may be left when a test ends."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from starling.infra.processes import HOME, MARKER, marks_by_pid
from starling.infra.providers.local.provider import LocalProvider
from tests.integration.runs.commands import Commands, LocalCommands


@pytest.fixture
def starling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    home = (tmp_path / "home").resolve()
    monkeypatch.setenv(HOME, str(home))
    monkeypatch.delenv("STARLING_STORE", raising=False)
    temporary = Path(tempfile.mkdtemp(prefix="runs-"))  # short: sockets lie below it
    monkeypatch.setenv("TMPDIR", str(temporary))
    commands = LocalCommands(tmp_path)
    try:
        yield commands
        assert not _node_processes(home), "processes of ended nodes are still alive"
        left = [path.name for path in temporary.iterdir()]
        assert not left, f"temporary files were left: {left}"
    finally:
        commands.kill_controllers()
        provider = LocalProvider(home=home)
        provider.terminate([machine.node for machine in provider.list()])
        shutil.rmtree(temporary)


def _node_processes(home: Path) -> dict[int, dict[str, str]]:
    """Processes that carry a node's marker and this home's (a controller carries the home's only)."""
    found = marks_by_pid((HOME, MARKER))
    return {pid: marks for pid, marks in found.items() if marks.keys() == {HOME, MARKER} and marks[HOME] == str(home)}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """state SHA-256 of the probe run that nothing happens to."""
    from tests.support.rounds import Run, probe_spec

    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Run(folder, str(folder / "store"), probe_spec(epochs=20))
    assert run.train(["a"]) == [0]
    return str(run.manifests()[-1].state_sha256)
