"""From one GPU to four: the same run, moved to bigger machines by editing two lines of its spec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from starling.infra.region.region import EmulatedRegion
from tests.integration.region.conftest import wait_for

SPEC = """\
name: growing
task: classification
model: small-cnn
data: {dataset: digits, source: digits}
training:
  epochs: 20
  global_batch: 64
  virtual_shards: 8
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
nodes:
  gpus_per_node: 1
provider:
  name: aws
  instance_types: [g4dn.xlarge]
"""
EDITS = {"gpus_per_node: 1": "gpus_per_node: 4", "[g4dn.xlarge]": "[g4dn.12xlarge]"}
FIRST_STEPS = 20
"""So many steps are made on the small node before it is stopped."""


class Laptop:
    """Types commands, with the region as its AWS."""

    def __init__(self, region: EmulatedRegion, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, **region.environment, "STARLING_HOME": str(folder / "home")}
        self._environment.pop("AWS_PROFILE", None)

    def type(self, *words: str) -> dict[str, Any]:
        """What the command says as JSON; fails if it fails."""
        command = [sys.executable, "-m", "starling.cli", *words, "--json"]
        ran = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        told: dict[str, Any] = json.loads(ran.stdout)
        return told


@pytest.fixture
def laptop(region: EmulatedRegion, short_folder: Path) -> Laptop:
    folder = short_folder / "laptop"
    folder.mkdir()
    return Laptop(region, folder)


@pytest.mark.timeout(1800)
def test_two_edited_lines_and_a_resume_move_a_run_to_four_gpus(laptop: Laptop, short_folder: Path) -> None:
    spec = short_folder / "laptop" / "spec.yaml"
    spec.write_text(SPEC)
    store = str(laptop.type("aws", "setup", "--region", "us-east-1")["store"])
    laptop.type("run", str(spec), "--name", "growing", "--store", store, "--detach")
    wait_for(
        "the first steps",
        lambda: laptop.type("status", "growing", "--store", store)["step"] >= FIRST_STEPS,
        patience=300,
    )
    stopped = laptop.type("stop", "growing", "--store", store)
    assert stopped["state"] == "stopped"
    text = SPEC
    for before, after in EDITS.items():
        assert before in text
        text = text.replace(before, after)
    spec.write_text(text)
    done = laptop.type("resume", "growing", "--spec", str(spec), "--store", store)
    assert (done["state"], done["steps_redone"]) == ("done", 0)
    rounds = [
        event["data"]
        for event in laptop.type("events", "growing", "--store", store)["events"]
        if event["kind"] == "round"
    ]
    assert rounds[0]["world_size"] == 1
    assert rounds[-1]["world_size"] == 4
    assert rounds[-1]["resume_step"] == stopped["step"]
    types = [line["offer"]["instance_type"] for line in done["ledger"]]
    assert types == ["g4dn.xlarge", "g4dn.12xlarge"]
    alone = laptop.type(
        "run",
        str(spec),
        "--name",
        "alone",
        "--store",
        str(short_folder / "store"),
        "-o",
        "nodes.gpus_per_node=0",
        "-o",
        'provider={"name": "local"}',
    )
    assert done["state_sha256"] == alone["state_sha256"]
