"""Runs whose model lies in parts on all ranks: real processes, real collectives, a real store."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from starling.infra import layout
from starling.infra.store import open_store
from starling.trainer.checkpoint.load import load_newest
from tests.support.rounds import Run, probe_spec

STEPS = 10
# Adam would turn the rounding errors of a gradient that is zero (a bias before BatchNorm) into whole steps.
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "betas": [0.9, 0.999], "eps": 1e-8}
TOLERANCE = 1e-3
"""Norm of the difference of a weight, relative to the norm of the weight, after STEPS steps (docs/large-images.md)."""


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload", "starling.trainer.sharded"])


def new_run(folder: Path, name: str, options: dict[str, Any] | None = None, **training: Any) -> Run:
    spec = probe_spec(options, **{"strategy": "fsdp", "optimizer": SGD, "virtual_shards": 4, **training})
    spec["task"]["name"] = "tests.support.image_task:PicturesTask"
    return Run(folder / name, str(folder / f"{name}-store"), spec)


def final_tensors(run: Run) -> dict[str, torch.Tensor]:
    loaded = load_newest(open_store(run.store_uri), layout.checkpoints(run.name), lambda step, reason: None)
    assert loaded is not None
    assert loaded[0].step == STEPS
    return loaded[0].tensors


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
    weights = [name for name in ours if name.startswith("model.") and ours[name].is_floating_point()]
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in weights)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on one rank that holds the whole model."""
    run = new_run(tmp_path_factory.mktemp("replicated"), "r", strategy="replicated")
    assert run.train(["a"]) == [0]
    return run


@pytest.mark.parametrize("nodes", [2, 3])
def test_results_are_those_of_the_whole_model(tmp_path: Path, replicated: Run, nodes: int) -> None:
    """Three ranks share four shards unevenly, and seven channels do not divide by two or three."""
    run = new_run(tmp_path, "r", activation_checkpointing=nodes == 3, channels_last=nodes == 3)
    assert set(run.train([f"n{index}" for index in range(nodes)])) == {0}
    assert largest_difference(final_tensors(run), final_tensors(replicated)) < TOLERANCE
    assert run.manifests()[-1].exact
    theirs, ours = (each.manifests()[-1].meta["history"][-1]["val"] for each in (replicated, run))
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_resumed_at_the_same_world_size_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = new_run(tmp_path, "undisturbed")
    assert undisturbed.train(["a", "b"]) == [0, 0]
    run = new_run(tmp_path, "r", {"step_seconds": 0.005})
    run.train(["a", "b"], stop_at=3)
    codes = run.train(["a", "b"], kill_at=7)
    assert codes == [-9, 75], "the killed rank's peer must end by itself, saying that a peer was lost"
    assert run.train(["b", "new"]) == [0, 0]  # one has the state, the other gets it from there
    assert run.manifests()[-1].step == STEPS
    assert run.manifests()[-1].state_sha256 == undisturbed.manifests()[-1].state_sha256
    assert run.manifests()[-1].exact


def test_another_world_size_goes_on_and_says_that_it_is_not_exact(tmp_path: Path, replicated: Run) -> None:
    run = new_run(tmp_path, "r", {"step_seconds": 0.005})
    run.train(["a", "b"], stop_at=3)
    assert run.train(["a"]) == [0]
    assert not run.manifests()[-1].exact
    assert largest_difference(final_tensors(run), final_tensors(replicated)) < TOLERANCE
    events = [path.read_text() for path in (tmp_path / "r-store" / "runs/r/events").iterdir()]
    assert any("1 ranks of fsdp go on with what 2 ranks of fsdp began" in event for event in events)


def test_loss_scaling_works_in_parts(tmp_path: Path, replicated: Run) -> None:
    run = new_run(tmp_path, "r", precision="fp16")
    assert run.train(["a", "b"]) == [0, 0]
    theirs, ours = (each.manifests()[-1].meta["history"][-1]["val"]["loss"] for each in (replicated, run))
    assert ours == pytest.approx(theirs, rel=0.05)
    assert run.manifests()[-1].meta["scaler"]["scale"] > 0


def test_frozen_parts_stay_what_they_are(tmp_path: Path) -> None:
    phases = [
        {"epochs": 1, "rates": {"classifier": 1.0}},
        {"epochs": None, "rates": {"classifier": 1.0, "blocks.2": 0.5}},
    ]
    whole, parts = (new_run(tmp_path, name, strategy=name, phases=phases) for name in ("replicated", "fsdp"))
    assert whole.train(["a"]) == [0]
    assert parts.train(["a", "b"]) == [0, 0]
    ours, theirs = final_tensors(parts), final_tensors(whole)
    assert torch.equal(ours["model.blocks.0.0.weight"], theirs["model.blocks.0.0.weight"])
    assert torch.equal(ours["model.blocks.1.1.running_var"], theirs["model.blocks.1.1.running_var"])
    assert largest_difference(ours, theirs) < TOLERANCE
