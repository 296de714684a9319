"""Equal bits of the lesion detector and of a fusion of two trained networks, at every world size and over every change
of it; and a fusion that is pinned to what it began with."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from starling.infra import layout
from starling.infra.records import RunRecord
from starling.infra.store import open_store
from starling.trainer.checkpoint.load import load_newest
from starling.trainer.data.prepare import prepare
from tests.support.rounds import Run, probe_spec

SIDE, TILE = 40, 16
STEPS = 8
"""Two epochs of 60 samples, 16 a step."""


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])


def write_images(folder: Path) -> None:
    """Whole images of three grades, with as many bright dots as the grade says; tiles with and without a dot."""
    random = np.random.default_rng(0)
    for number in range(75):
        split, grade = ("val" if number % 5 == 0 else "train"), number % 3
        pixels = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
        for _ in range(3 * grade):
            x, y = random.integers(2, SIDE - 2, 2)
            pixels[y - 1 : y + 2, x - 1 : x + 2] = 250
        tile = random.integers(0, 90, (TILE, TILE, 3), dtype=np.uint8)
        if number % 2:
            tile[6:9, 8:11] = 250
        for place, picture in ((f"whole/{split}/{grade}", pixels), (f"tiles/{split}/{KINDS[number % 2]}", tile)):
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / place / f"{number}.png")


KINDS = ("none", "lesion")


def spec_of(
    task: str, options: dict[str, Any], model: str, model_options: dict[str, Any], **more: Any
) -> dict[str, Any]:
    spec = probe_spec(epochs=more.pop("epochs", 2), virtual_shards=4)
    spec["task"] = {"name": task, "options": options}
    spec["model"] = {"name": model, "options": model_options, "weights": None}
    spec["data"] = {
        "dataset": "tiles" if task == "lesions" else "whole",
        "source": None,
        "fraction": 1.0,
        "cache": None,
    }
    return {**spec, **more}


MAIN = spec_of("grading", {"image_size": 20}, "small-cnn", {"channels": [8, 8]})
LESIONS = spec_of("lesions", {"resample": 1, "augment": {"flip": True}}, "tile-detector", {"channels": [4, 8, 8]})
FUSION = spec_of(
    "fusion",
    {"resample": 1, "artefacts": 0.5, "augment": {"flip": True, "rotate": 180}},
    "fusion-net",
    {"hidden": 8, "grid": 2},
    needs={"main": "main", "lesions": "detector"},
)


class World:
    """A store with datasets and trained runs, and runs in it whose nodes have disks of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_store(str(folder / "store"))
        write_images(folder)
        for name in ("whole", "tiles"):
            prepare(str(folder / name), self.store, name)

    def run(self, name: str, spec: dict[str, Any]) -> Run:
        record = RunRecord(run=name, created_at=0.0)
        self.store.put(layout.run_record(name), record.to_bytes())
        self.store.put(layout.spec(name, 0), yaml.safe_dump(spec).encode())
        return Run(self.folder / name, str(self.folder / "store"), spec, name=name)

    def trained(self, name: str, spec: dict[str, Any]) -> Run:
        run = self.run(name, spec)
        assert run.train(["a"]) == [0], failure(run)
        return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def detector(world: World) -> Run:
    return world.trained("detector", LESIONS)


@pytest.fixture(scope="module")
def undisturbed(world: World, detector: Run) -> Run:
    world.trained("main", MAIN)
    return world.trained("undisturbed", FUSION)


def failure(run: Run, node: str = "a") -> str:
    path = run.work(node) / "failure-0.json"
    return path.read_text() if path.exists() else ""


def final(run: Run) -> str:
    manifest = run.manifests()[-1]
    assert manifest.step == STEPS
    return manifest.state_sha256


def test_the_detector_is_exact_over_world_sizes_and_interruptions(world: World, detector: Run) -> None:
    run = world.run("lesions-disturbed", LESIONS)
    run.train(["a"], stop_at=2)
    run.train(["a", "b"], kill_at=4)
    run.train(["b", "c", "d"])
    assert final(run) == final(detector)


def test_the_fusion_is_exact_over_world_sizes_and_interruptions(world: World, undisturbed: Run) -> None:
    run = world.run("fusion-disturbed", FUSION)
    run.train(["a", "b", "c"], stop_at=2)
    run.train(["d"], kill_at=5)
    run.train(["a", "d"])
    assert final(run) == final(undisturbed)


def test_the_frozen_networks_are_no_part_of_the_state(world: World, undisturbed: Run) -> None:
    loaded = load_newest(world.store, layout.checkpoints("undisturbed"))
    assert loaded is not None
    parts = {name.split(".")[1] for name in loaded[0].tensors}
    assert parts == {"norm", "mix", "classifier"}


def test_the_frozen_networks_decide_the_outcome(world: World, undisturbed: Run) -> None:
    """Else all of this could pass with networks that are not used at all."""
    world.trained("other-main", {**MAIN, "training": {**MAIN["training"], "seed": 8}})
    world.trained("other-detector", {**LESIONS, "training": {**LESIONS["training"], "seed": 8}})
    for needs in ({"main": "other-main", "lesions": "detector"}, {"main": "main", "lesions": "other-detector"}):
        run = world.trained(f"with-{'-'.join(needs.values())}", {**FUSION, "needs": needs})
        assert final(run) != final(undisturbed)


def test_what_a_needed_run_becomes_later_changes_nothing(world: World, undisturbed: Run) -> None:
    growing = world.trained("growing", MAIN)
    run = world.run("pinned", {**FUSION, "needs": {"main": "growing", "lesions": "detector"}})
    run.train(["a"], stop_at=2)
    growing.spec = {**MAIN, "training": {**MAIN["training"], "epochs": 3}}
    assert growing.train(["a"]) == [0]
    assert growing.manifests()[-1].step > STEPS
    run.train(["fresh"])
    assert final(run) == final(undisturbed)
    pins = json.loads(world.store.get(layout.needs_pin("pinned")).data)
    assert pins["main"]["step"] == STEPS


def test_a_pinned_checkpoint_that_is_gone_is_named(world: World, undisturbed: Run) -> None:
    run = world.run("bereft", FUSION)
    run.train(["a"], stop_at=2)
    pin = json.loads(world.store.get(layout.needs_pin("bereft")).data)
    pin["main"]["step"] = 3
    world.store.put(layout.needs_pin("bereft"), json.dumps(pin).encode())
    assert run.train(["a"]) == [76]
    assert "the checkpoint of step 3 of run main is gone" in failure(run)
