"""What a run takes over from the runs that it needs: pinned once, verified always, fetched once a node."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from starling.infra import layout
from starling.infra.errors import UsageError
from starling.infra.records import RunRecord
from starling.infra.store import Store, open_store
from starling.trainer.checkpoint.files import write_tensors
from starling.trainer.checkpoint.load import load_checkpoint
from starling.trainer.checkpoint.manifest import Manifest, Part, manifest_key, part_key
from starling.trainer.needs import needed
from starling.trainer.state import TrainingState
from starling.trainer.task import TaskContext

SPEC = {"task": {"name": "classification", "options": {}}, "command": None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "store"))
    opened.put(layout.run_record("low"), RunRecord(run="low", created_at=0.0).to_bytes())
    opened.put(layout.spec("low", 0), yaml.safe_dump(SPEC).encode())
    return opened


def commit(store: Store, tmp_path: Path, step: int, value: float) -> None:
    """A checkpoint whose weights are all `value`."""
    tensors = {"model.layer.weight": torch.full((3, 2), value), "optimizer.layer.weight.m": torch.zeros(3, 2)}
    state = TrainingState(step=step, tensors=tensors, scaler={}, schedule={})
    prefix, path = layout.checkpoints("low"), tmp_path / "part"
    write_tensors(tensors, path)
    key = part_key(prefix, step, 0, 0, 1)
    store.upload(path, key)
    manifest = Manifest(
        step=step,
        epoch=1,
        epoch_end=True,
        created_at=0.0,
        run="low",
        incarnation=0,
        round=0,
        world_size=1,
        parts=[Part(key=key, size=path.stat().st_size, sha256="")],
        meta=state.meta(),
        fingerprint={},
        code_sha256=None,
        exact=True,
        weights_sha256=state.weights_sha256(),
        state_sha256=state.state_sha256(),
    )
    store.put(manifest_key(prefix, step), manifest.to_bytes())


def context(store: Store, tmp_path: Path, run: str | None = "high", **needs: str) -> TaskContext:
    settings: dict[str, Any] = {"options": {}, "model_name": None, "model_options": {}, "dataset": None, "seed": 0}
    return TaskContext(store=store, cache_dir=tmp_path / "cache", run=run, needs=needs or {"lowres": "low"}, **settings)


def value_of(found: dict[str, torch.Tensor]) -> float:
    assert found.keys() == {"layer.weight"}, "only the model's own, by its own names"
    return float(found["layer.weight"].mean())


def test_the_newest_checkpoint_is_meant_and_stays_meant(store: Store, tmp_path: Path) -> None:
    commit(store, tmp_path, 3, 0.5)
    commit(store, tmp_path, 7, 1.5)
    assert value_of(needed(context(store, tmp_path), "lowres").weights()) == 1.5
    commit(store, tmp_path, 9, 2.5)
    assert value_of(needed(context(store, tmp_path), "lowres").weights()) == 1.5
    assert value_of(needed(context(store, tmp_path, run="another"), "lowres").weights()) == 2.5
    assert value_of(needed(context(store, tmp_path, run=None), "lowres").weights()) == 2.5
    assert json.loads(store.get(layout.needs_pin("high")).data)["lowres"]["step"] == 7


def test_a_node_fetches_weights_once(store: Store, tmp_path: Path) -> None:
    commit(store, tmp_path, 3, 0.5)
    needed(context(store, tmp_path), "lowres").weights()
    store.delete(part_key(layout.checkpoints("low"), 3, 0, 0, 1))
    assert value_of(needed(context(store, tmp_path), "lowres").weights()) == 0.5


def test_ranks_that_come_at_the_same_time_fetch_weights_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, tmp_path, 3, 0.5)
    fetched = []

    def fetch(store: Store, manifest: Manifest) -> TrainingState:
        fetched.append(manifest.step)
        time.sleep(0.1)  # so that all others come meanwhile
        return load_checkpoint(store, manifest)

    monkeypatch.setattr("starling.trainer.needs.load_checkpoint", fetch)
    with ThreadPoolExecutor(4) as ranks:
        found = [ranks.submit(needed(context(store, tmp_path), "lowres").weights) for _ in range(4)]
        assert {value_of(each.result()) for each in found} == {0.5}
    assert fetched == [3]


def test_a_run_that_has_no_checkpoints_hinders_no_other(store: Store, tmp_path: Path) -> None:
    """A script that is needed first, to prepare something, has none."""
    commit(store, tmp_path, 3, 0.5)
    needs = {"lowres": "low", "script": "script"}
    assert value_of(needed(context(store, tmp_path, **needs), "lowres").weights()) == 0.5
    with pytest.raises(UsageError, match=r"needs\.script: run script has no checkpoint"):
        needed(context(store, tmp_path, **needs), "script")


@pytest.mark.parametrize("gone", [layout.run_record("low"), manifest_key(layout.checkpoints("low"), 3)])
def test_what_is_gone_is_no_reason_to_try_again(store: Store, tmp_path: Path, gone: str) -> None:
    commit(store, tmp_path, 3, 0.5)
    needed(context(store, tmp_path), "lowres")
    store.delete(gone)
    with pytest.raises(UsageError, match="step 3 of run low is gone"):
        needed(context(store, tmp_path), "lowres")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_weights_on_the_disk_are_fetched_again(store: Store, tmp_path: Path, damage: str) -> None:
    commit(store, tmp_path, 3, 0.5)
    needed(context(store, tmp_path), "lowres").weights()
    (kept,) = (tmp_path / "cache" / "needs").glob("*.safetensors")
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data[:-4] if damage == "cut" else data)
    assert value_of(needed(context(store, tmp_path), "lowres").weights()) == 0.5


def test_another_state_under_the_pinned_step_is_refused(store: Store, tmp_path: Path) -> None:
    commit(store, tmp_path, 3, 0.5)
    needed(context(store, tmp_path), "lowres")
    commit(store, tmp_path, 3, 0.75)
    with pytest.raises(UsageError, match="step 3 of run low has other weights now"):
        needed(context(store, tmp_path), "lowres")


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run low has no checkpoint"):
        needed(context(store, tmp_path), "lowres")
    with pytest.raises(UsageError, match="nothing is called 'main'; there are: lowres"):
        needed(context(store, tmp_path), "main")


@pytest.mark.parametrize(
    "spec", [{**SPEC, "task": {"name": "mine:Task"}}, {"command": {"run": ["x.py"]}, "task": None}]
)
def test_code_that_is_not_here_is_not_run(store: Store, tmp_path: Path, spec: dict[str, Any]) -> None:
    commit(store, tmp_path, 3, 0.5)
    store.put(layout.spec("low", 0), yaml.safe_dump(spec).encode())
    with pytest.raises(UsageError, match="trains code of its own"):
        needed(context(store, tmp_path), "lowres").task()
