"""The job as a careful user would write it for plain torchrun: `script.py DIARIES CHECKPOINTS`.

Rank 0 saves every so many steps, whole or not at all; every rank loads the newest when it starts.
"""

import time

STARTED = time.time()  # before torch: importing it is most of a worker's start

import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from benchmarks.recovery_job import training  # noqa: E402

SAVE_EVERY = 20


def main() -> None:
    torch.set_num_threads(1)
    diary = training.Diary(Path(sys.argv[1]))
    diary.note("started", STARTED)
    diary.note("imported")
    dist.init_process_group("gloo")
    diary.note("connected")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = training.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=training.RATE, momentum=0.9)
    checkpoint = Path(sys.argv[2]) / "newest.pt"
    step = _load(checkpoint, model, optimizer)
    parallel = DistributedDataParallel(model)
    diary.note("loaded")
    diary.note_every_step()
    while True:
        first = step * training.BATCH
        mine = [index % training.SAMPLES for index in range(first + rank, first + training.BATCH, world)]
        optimizer.zero_grad()
        training.losses(parallel, *training.samples(mine)).mean().backward()
        optimizer.step()
        step += 1
        if step % SAVE_EVERY == 0 and rank == 0:
            _save(checkpoint, model, optimizer, step)


def _load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    aside = path.with_suffix(f".{os.getpid()}")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, aside)
    aside.replace(path)


if __name__ == "__main__":
    main()
