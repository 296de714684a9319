"""What a rank holds of a model that lies in parts, and how it becomes whole again."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from starling.infra.store import open_store
from starling.trainer.comm import process_group
from starling.trainer.config import Training, read_training
from starling.trainer.models.build import build
from starling.trainer.seeding import seed_torch
from starling.trainer.sharded import FsdpStepper
from starling.trainer.sharding import held
from starling.trainer.task import TaskContext
from tests.support.image_task import Pictures, PicturesTask
from tests.support.ports import kept_port
from tests.support.rounds import PATIENCE, training_spec

CHANNELS = [16, 32, 61]


class WiderTask(PicturesTask):
    def build_model(self) -> torch.nn.Module:
        return build("small-cnn", {"channels": CHANNELS}, num_classes=2, in_channels=3)


def training() -> Training:
    return read_training(training_spec(strategy="fsdp", virtual_shards=4))


def _one_rank(rank: int, world_size: int, port: int, folder: str, results: Any) -> None:
    """Two steps, the state of the first saved and restored in between by another model; puts (held, hashes)."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    context = TaskContext(
        options={},
        model_name=None,
        model_options={},
        dataset=None,
        store=open_store(folder),
        cache_dir=Path(folder),
        seed=0,
    )
    with process_group(rank, world_size, torch.device("cpu"), PATIENCE) as comm:
        hashes = []
        for interrupted in (False, True):
            stepper = _stepper(context, comm, "weights")
            stepper.run(0, 0.01, 16, _batch)
            if interrupted:
                state = stepper.state(1, keep=True)
                stepper = _stepper(context, comm, "other weights")
                stepper.restore(state)
            stepper.run(1, 0.01, 16, _batch)
            hashes.append(stepper.state(2, keep=True).state_sha256())
        not_kept = stepper.state(2, keep=False).tensors
        assert ("model.classifier.weight" in not_kept) == (world_size == 1)
        parameters = list(stepper.model.parameters())
        gradients = [each.grad for each in parameters if each.grad is not None]
        kept = [value for state in stepper.optimizer.state.values() for value in state.values()]
        results.put((held(parameters), held(gradients), held(kept), *hashes))


def _stepper(context: TaskContext, comm: Any, seed: str) -> FsdpStepper:
    task = WiderTask(context)
    seed_torch(seed)
    return FsdpStepper(task, task.build_model(), training(), comm, torch.device("cpu"))


def _batch(step: int, shard: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    first = step * 16 + shard * 4
    return Pictures(75).batch(range(first, first + 4), seed=0, epoch=0), torch.ones(4)


def ranks(world_size: int, folder: Path) -> list[tuple[int, int, int, str, str]]:
    """What each rank of a world puts, in any order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["starling.trainer.forkserver_preload", "starling.trainer.sharded"])
    results = context.Queue()
    with kept_port() as port:
        arguments = [(rank, world_size, port, str(folder), results) for rank in range(world_size)]
        processes = [context.Process(target=_one_rank, args=each) for each in arguments]
        for process in processes:
            process.start()
        try:
            return [results.get(timeout=PATIENCE) for _ in processes]
        finally:
            for process in processes:
                process.join(30)
                process.kill()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_rank_holds_its_part_of_parameters_gradients_and_optimizer_state(tmp_path: Path, world_size: int) -> None:
    """61 channels do not divide evenly: the largest part may be somewhat larger than the mean."""
    model = build("small-cnn", {"channels": CHANNELS}, num_classes=2, in_channels=3)
    whole = sum(parameter.numel() for parameter in model.parameters())
    tensors = len(list(model.parameters()))
    found = ranks(world_size, tmp_path)
    parameters, gradients, kept = (list(each) for each in list(zip(*found, strict=True))[:3])
    assert sum(parameters) == sum(gradients) == whole
    assert sum(kept) == 2 * whole + world_size * tensors  # two moments of AdamW, and its count of steps on every rank
    assert max(parameters) <= 1.1 * whole / world_size
    hashes = {value for *_, undisturbed, interrupted in found for value in (undisturbed, interrupted)}
    assert len(hashes) == 1, "a state that was gathered and spread again must go on with the same bits"
