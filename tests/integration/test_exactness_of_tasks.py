"""Equal bits of the built-in tasks with everything that could spoil them: balanced resampling, a share of the data,
augmentation with noise, pretrained weights, phases that freeze and thaw parts, gathered metrics."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from starling.infra.store import open_store
from starling.trainer.checkpoint.load import load_newest
from starling.trainer.data.prepare import prepare
from tests.support.rounds import Run, probe_spec

SIDE = 32
TRAIN = (20, 8, 6, 4, 2)
"""Images of each grade."""
VAL = (6, 3, 3, 2, 2)
EPOCHS = 3
STEPS = 9
"""Three steps an epoch: 36 of 40 images (nine tenths), 16 a step."""

AUGMENT = {
    "flip": True,
    "flip_vertical": True,
    "rotate": 180,
    "shift": 2,
    "zoom": [0.9, 1.1],
    "crop": 0.9,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "channel_gain": 0.1,
    "blur": 1.0,
    "noise": 0.05,
}
OPTIONS = {"classes": 3, "resample": 0.7, "augment": AUGMENT, "loss": {"name": "focal", "weights": "balanced"}}
PHASES = [
    {"epochs": 1, "rates": {"head": 1.0}},
    {"epochs": 1, "rates": {"head": 1.0, "top": 0.5, "blocks.15": 0.1}},
    {"epochs": None, "rates": {"head": 0.5, "backbone": 0.1}},
]


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a dataset of five grades: noise, brighter in the middle the higher the grade."""
    folder = tmp_path_factory.mktemp("grades")
    random = np.random.default_rng(0)
    for split, counts in (("train", TRAIN), ("val", VAL)):
        for grade, count in enumerate(counts):
            place = folder / "images" / split / str(grade)
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[8:24, 8:24] += 30 * grade
                Image.fromarray(pixels).save(place / f"{number}.png")
    store = open_store(str(folder / "store"))
    prepare(str(folder / "images"), store, "grades")
    return str(folder / "store" / "data" / "grades")


def grading_spec(dataset: str, *, ranks: int = 1, **training: Any) -> dict[str, Any]:
    settings = {"epochs": EPOCHS, "virtual_shards": 4, "phases": PHASES, **training}
    spec = probe_spec(ranks=ranks, **settings)
    spec["task"] = {"name": "grading", "options": OPTIONS}
    spec["model"] = {"name": "efficientnet-lite0", "options": {"head": {"hidden": 8}}, "weights": "imagenet"}
    spec["data"] = {"dataset": dataset, "source": None, "fraction": 0.9, "cache": None}
    return spec


def new_run(folder: Path, dataset: str, **changes: Any) -> Run:
    return Run(folder, str(folder / "store"), grading_spec(dataset, **changes))


@pytest.fixture(scope="module")
def undisturbed(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = new_run(tmp_path_factory.mktemp("undisturbed"), dataset)
    assert run.train(["a"]) == [0]
    return run


def final(run: Run) -> Any:
    manifest = run.manifests()[-1]
    assert manifest.step == STEPS
    assert manifest.exact
    return manifest


def history(run: Run) -> list[dict[str, Any]]:
    loaded = load_newest(open_store(run.store_uri), f"runs/{run.name}/checkpoints/", lambda step, why: None)
    assert loaded is not None
    return loaded[0].history


def test_three_nodes_end_with_the_state_and_metrics_of_one(tmp_path: Path, dataset: str, undisturbed: Run) -> None:
    run = new_run(tmp_path, dataset)
    assert run.train(["a", "b", "c"]) == [0, 0, 0]
    assert final(run).state_sha256 == final(undisturbed).state_sha256
    assert history(run) == history(undisturbed)


def test_interruptions_in_every_phase_change_nothing(tmp_path: Path, dataset: str, undisturbed: Run) -> None:
    run = new_run(tmp_path, dataset)
    run.train(["a", "b"], stop_at=4)
    run.train(["a"], kill_at=7)
    run.train(["b", "c"])
    assert final(run).state_sha256 == final(undisturbed).state_sha256
    assert history(run) == history(undisturbed)


def test_metrics_of_the_whole_split_are_reported(undisturbed: Run) -> None:
    epochs = [epoch["val"] for epoch in history(undisturbed)]
    assert len(epochs) == EPOCHS
    expected = {"loss", "accuracy", "cross_entropy", "kappa", "sensitivity", "specificity", "auc", "calibration_error"}
    assert all(set(epoch) == expected for epoch in epochs)
    assert all(math.isfinite(value) for epoch in epochs for value in epoch.values())


def test_other_weights_at_a_second_beginning_are_refused(tmp_path: Path, dataset: str) -> None:
    run = new_run(tmp_path, dataset)
    run.train(["a"], stop_at=1)
    pin = tmp_path / "store" / "runs/r/weights.json"
    pin.write_text(json.dumps({"weights": "imagenet", "sha256": "0" * 64}))
    for manifest in run.manifests():
        (tmp_path / "store" / f"runs/r/checkpoints/{manifest.step:010d}/manifest.json").unlink()
    assert run.train(["b"]) == [76]
    assert "the content of imagenet has changed since the run began" in (run.work("b") / "failure-0.json").read_text()


def test_ranks_that_would_begin_with_different_weights_do_not_begin(tmp_path: Path) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec())
    run.spec["task"]["name"] = "tests.support.tasks:UnevenStart"
    run.spec["model"] = {"name": "own", "options": {}, "weights": "own.safetensors"}
    assert run.train(["a", "b"]) == [76, 76]
    assert "not all ranks began with the same weights" in (run.work("b") / "failure-1.json").read_text()
    assert not (tmp_path / "store" / "runs/r/weights.json").exists()


def test_a_plain_run_freezes_and_thaws_too(tmp_path: Path, dataset: str) -> None:
    """DistributedDataParallel reduces other gradients in every phase, also where a round begins in the middle."""
    phases = [{"epochs": 2, "rates": {"head": 1.0}}, {"epochs": None, "rates": {"backbone": 0.1}}]
    runs = [new_run(tmp_path / name, dataset, exact=False, phases=phases) for name in ("whole", "cut")]
    for run in runs:
        run.spec["model"] = {"name": "small-cnn", "options": {}, "weights": None}
    assert runs[0].train(["a", "b"]) == [0, 0]
    runs[1].train(["a", "b"], stop_at=4)
    assert runs[1].train(["a", "b"]) == [0, 0]
    whole, cut = (run.manifests()[-1] for run in runs)
    assert whole.step == cut.step == STEPS
    assert whole.weights_sha256 == cut.weights_sha256
