"""Four dependent runs through the public commands: low resolution, high resolution, lesions, and the fusion of both."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.infra import layout
from starling.infra.store import open_store
from starling.orchestrator.reading import read_verdict
from tests.integration.runs.commands import Commands
from tests.support.rounds import Run

SMALL = Path(__file__).parents[3] / "configs" / "stanford-small.yaml"
SECONDS = 420.0
"""Far more than it takes on a machine of its own."""


def typed(starling: Commands, *words: str) -> str:
    done = starling.type(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def prepare(starling: Commands) -> None:
    """As the header of the config says, with smaller images."""
    typed(starling, "data", "synth", "fundus", "images", "--images", "60", "--size", "128", "--workers", "1")
    typed(starling, "data", "prepare", "images", "fundus", "--labels", "trainLabels.csv")
    cut = ["--lesions", "images/lesions.csv", "--labels", "trainLabels.csv", "--tile", "32"]
    typed(starling, "data", "tiles", "images", "tiles", *cut)
    typed(starling, "data", "prepare", "tiles", "fundus-tiles")


def wait_until_over(starling: Commands, run: str) -> dict[str, Any]:
    """Looks into the store, as commands that are typed all the time would slow down what is waited for."""
    store, deadline = open_store(str(starling.folder / "home" / "store")), time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if read_verdict(store, run, 0) is not None:
            return starling.json("status", run)
        time.sleep(0.5)
    raise AssertionError(starling.type("list").stdout + starling.type("events", run).stdout)


def first_wanted(starling: Commands, run: str) -> float:
    """When the run's controller first bought a node."""
    events = starling.json("events", run)["events"]
    return float(min(event["at"] for event in events if event["kind"] == "node-wanted"))


@pytest.fixture(scope="module")
def _forkserver() -> None:
    """Its folder is made before the test gets a place for temporary files that must be empty at the end."""
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])
    multiprocessing.util.get_temp_dir()


@pytest.mark.usefixtures("_forkserver")
def test_a_chain_of_four_runs_ends_in_a_fusion_that_an_interruption_does_not_change(
    starling: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing torchvision makes torch's compiler put an empty cache among the temporary files.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(starling.folder / "compiled"))
    prepare(starling)
    plan = typed(starling, "plan", str(SMALL))
    assert [line.split(",")[0] for line in plan.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 4: needs.main.lowres",
        "stage 2 of 4: needs.main",
        "stage 3 of 4: needs.lesions",
        "stage 4 of 4: the run itself",
    ]
    typed(starling, "run", str(SMALL), "--name", "s", "--detach")
    waiting = starling.json("status", "s")
    assert waiting["state"] == "pending"
    assert waiting["reason"].startswith("waits for run s-main (needs.main")
    assert waiting["needs"].keys() == {"main", "lesions"}
    assert "waits for s-main" in typed(starling, "list")
    told = wait_until_over(starling, "s")
    assert told["state"] == "done", told["reason"]
    assert {need["state"] for need in told["needs"].values()} == {"done"}
    result = starling.json("result", "s")
    assert result["exact"]
    began = {run: first_wanted(starling, run) for run in ("s-main-lowres", "s-main", "s")}
    assert began["s-main-lowres"] < began["s-main"] < began["s"]
    assert again_with_interruptions(starling) == result["state_sha256"]


def again_with_interruptions(starling: Commands) -> str:
    """The fusion anew, from the same two trained networks: stopped in the midst, then on other nodes."""
    uri = str(starling.folder / "home" / "store")
    spec = yaml.safe_load(open_store(uri).get(layout.spec("s", 0)).data)
    run = Run(starling.folder / "again", uri, spec, name="again")
    run.train(["a"], stop_at=2)
    run.train(["b", "c"])
    return run.manifests()[-1].state_sha256
