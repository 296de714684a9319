"""The examples of the documentation that use one piece alone do what the text around them says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from starling.infra.store import open_store
from starling.trainer.checkpoint.manifest import committed_steps, delete_checkpoint, read_manifest

ROOT = Path(__file__).parents[2]
HEADING = "## In a loop of your own"
PREFIX = "runs/mine/checkpoints/"


def example(page: str) -> str:
    """The first Python block below HEADING."""
    text = (ROOT / "docs" / page).read_text().partition(HEADING)[2]
    found = re.search(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no example below {HEADING!r}"
    return found[1]


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_checkpointer_alone_saves_and_resumes(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(example("checkpoints.md"))
    store = open_store(str(tmp_path / "store"))

    run(tmp_path, sys.executable, str(script))
    assert committed_steps(store, PREFIX) == [60, 80, 100]
    whole = read_manifest(store, PREFIX, 100)
    assert whole.parts[0].sha256 == store.upload(tmp_path / "copies" / "0000000100" / "state.safetensors", "copy")

    for step in (80, 100):  # as if it had been killed after step 60
        delete_checkpoint(store, PREFIX, step)
    run(tmp_path, sys.executable, str(script))
    assert committed_steps(store, PREFIX) == [60, 80, 100]
    # Initial weights are random: only a run that went on from step 60 ends with the same.
    assert read_manifest(store, PREFIX, 100).state_sha256 == whole.state_sha256


def test_the_exact_reduction_alone_gives_the_same_bits_at_every_world_size(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(example("exactness.md"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    hashes = {ranks: run(tmp_path, *torchrun, str(ranks), str(script)).strip() for ranks in (1, 2, 3)}
    assert len(set(hashes.values())) == 1, hashes
    assert re.fullmatch(r"[0-9a-f]{64}", hashes[1])


@pytest.mark.parametrize("page", ["checkpoints.md", "exactness.md"])
def test_examples_stay_short(page: str) -> None:
    """What one would have to write: without imports and the model."""
    lines = [line for line in example(page).splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 18, lines
