"""Activations that are computed again, and images in channels-last layout: the bits stay what they are."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.support.rounds import Run, probe_spec


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])


def ends_with(folder: Path, nodes: int, **training: Any) -> str:
    """SHA-256 of the state after a whole run."""
    spec = probe_spec(**training)
    spec["task"]["name"] = "tests.support.image_task:PicturesTask"
    run = Run(folder, str(folder / "store"), spec)
    assert set(run.train([f"n{index}" for index in range(nodes)])) == {0}
    assert run.manifests()[-1].step == 10
    return run.manifests()[-1].state_sha256


def test_activations_that_are_computed_again_change_no_bit(tmp_path: Path) -> None:
    kept = ends_with(tmp_path / "kept", 1)
    assert ends_with(tmp_path / "again", 1, activation_checkpointing=True) == kept
    assert ends_with(tmp_path / "again-on-three", 3, activation_checkpointing=True) == kept


def test_channels_last_is_exact_at_every_world_size(tmp_path: Path) -> None:
    both = {"channels_last": True, "activation_checkpointing": True, "precision": "bf16"}
    assert ends_with(tmp_path / "one", 1, **both) == ends_with(tmp_path / "two", 2, **both)


def test_plain_data_parallel_training_computes_activations_again(tmp_path: Path) -> None:
    kept = ends_with(tmp_path / "kept", 2, exact=False)
    assert ends_with(tmp_path / "again", 2, exact=False, activation_checkpointing=True, channels_last=False) == kept
