"""What a model is made of parts of; in a group of one rank, which is enough to see which tensors are parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from starling.trainer.comm import Comm
from starling.trainer.sharding import gathered, shard_model, spread
from starling.trainer.state import capture, restore

CPU = torch.device("cpu")


@pytest.fixture
def comm(tmp_path: Path) -> Iterator[Comm]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield Comm(0, 1, CPU, "gloo")
    dist.destroy_process_group()


class Companion(nn.Module):
    """Has a network that is no part of its state, but is where the model is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.moved = 0

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Companion:
        self.moved += 1
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def test_what_is_no_parameter_moves_with_the_model(comm: Comm) -> None:
    model = Companion()
    shard_model(model, comm, CPU)
    assert model.moved == 1
    assert isinstance(model.layer.weight, DTensor)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(value))
        return result


def test_tied_weights_stay_tied(comm: Comm) -> None:
    whole, parts = Tied(), Tied()
    parts.load_state_dict(whole.state_dict())
    optimizers = [torch.optim.SGD(whole.parameters(), 0.1, momentum=0.9)]
    shard_model(parts, comm, CPU)
    optimizers.append(torch.optim.SGD(parts.parameters(), 0.1, momentum=0.9))
    for model, optimizer in zip((whole, parts), optimizers, strict=True):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    state = capture(1, parts, optimizers[1])
    state.tensors = gathered(state.tensors, comm, keep=True)
    assert torch.equal(state.tensors["model.last.weight"], whole.first.weight)
    other = Tied()
    shard_model(other, comm, CPU)
    optimizer = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    state.tensors = spread(state.tensors, other, comm)
    restore(state, other, optimizer)
    assert other.last.weight is other.first.weight
    assert torch.equal(
        gathered(capture(1, other, optimizer).tensors, comm, keep=True)["model.first.weight"], whole.first.weight
    )
