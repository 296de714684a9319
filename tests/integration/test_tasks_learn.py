"""The built-in task and the example of a user's own, trained for real by the plainest possible loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from starling.infra.store import Store, open_store
from starling.trainer.data.order import eval_batches, plain_order, shard_samples, steps_per_epoch
from starling.trainer.data.prepare import prepare
from starling.trainer.task import Task, TaskContext
from starling.trainer.tasks.loading import load_task

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store(str(tmp_path / "store"))


def train(task: Task, *, epochs: int, lr: float) -> dict[str, float]:
    """Adam with batches of 64; the mean loss and scores over the validation samples."""
    torch.manual_seed(0)
    model, samples = task.build_model(), task.train_samples()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(epochs * steps_per_epoch(len(samples), 64)):
        epoch, step_in_epoch = divmod(step, steps_per_epoch(len(samples), 64))
        indices, weights = shard_samples(plain_order(len(samples), 0, epoch), 64, 1, step_in_epoch, 0)
        losses = task.score(model, samples.batch(indices, seed=0, epoch=0)).losses
        optimizer.zero_grad()
        ((losses * torch.tensor(weights)).sum() / sum(weights)).backward()
        optimizer.step()
    return evaluate(task, model.eval())


@torch.no_grad()
def evaluate(task: Task, model: torch.nn.Module) -> dict[str, float]:
    samples = task.val_samples()
    assert samples is not None
    sums: dict[str, float] = {}
    for indices, weights in eval_batches(len(samples), 1, 0, 64):
        scored = task.score(model, samples.batch(indices, seed=0, epoch=None))
        for name, values in {task.loss_name: scored.losses, **scored.scores}.items():
            sums[name] = sums.get(name, 0.0) + float((values * torch.tensor(weights)).sum())
    return {name: total / len(samples) for name, total in sums.items()}


def test_the_small_cnn_learns_the_digits(store: Store, tmp_path: Path) -> None:
    prepare("digits", store, "digits")
    context = TaskContext(
        options={},
        model_name="small-cnn",
        model_options={},
        dataset="digits",
        store=store,
        cache_dir=tmp_path / "cache",
        seed=0,
    )
    metrics = train(load_task("classification", context), epochs=8, lr=3e-3)
    assert metrics["accuracy"] >= 0.97
    assert metrics["cross_entropy"] < 0.12


def test_the_example_of_an_own_task_learns_the_sine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "own-task.yaml").read_text())
    monkeypatch.syspath_prepend((ROOT / "configs" / spec["code"]).resolve())
    monkeypatch.delitem(sys.modules, "task", raising=False)
    context = TaskContext(
        options=spec["task"]["options"],
        model_name=None,
        model_options={},
        dataset=None,
        store=store,
        cache_dir=tmp_path / "cache",
        seed=0,
    )
    task = load_task(spec["task"]["name"], context)
    epochs, lr = spec["training"]["epochs"], spec["training"]["optimizer"]["lr"]
    metrics = train(task, epochs=epochs, lr=lr)
    monkeypatch.delitem(sys.modules, "task")
    assert metrics["squared_error"] < 0.005
    assert metrics["within_a_tenth"] > 0.9
