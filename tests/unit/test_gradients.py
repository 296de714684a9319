from __future__ import annotations

import pytest
import torch
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.comm import Comm
from starling.trainer.counters import Counters
from starling.trainer.exact import ExactReduction
from starling.trainer.gradients import MAX_SCORES

SHARDS = 8
FLOAT = torch.finfo(torch.float32)


class Net(nn.Module):
    """A layer, BatchNorm, and constants of every size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.triu(torch.full((3, 3), FLOAT.min), 1))
        sizes = [FLOAT.max, FLOAT.tiny, FLOAT.smallest_normal / 4, 5 * 2.0**-149, -(2.0**-149), -0.0, 0.1, -3.3, 1e38]
        self.register_buffer("constants", torch.tensor([*sizes, float("inf"), float("-inf")]))
        self.register_buffer("seen", torch.zeros(2, 3, dtype=torch.int64))
        self.register_buffer("begun", torch.tensor(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.get_buffer("begun").fill_(True)
        answer: torch.Tensor = self.norm(self.layer(x))
        return answer


def one_step(net: Net, seen: dict[int, int] | None = None) -> None:
    """`seen`: shard -> what it adds to the integer buffer."""
    reduction = ExactReduction(net, Comm(0, 1, torch.device("cpu"), "none"), SHARDS)
    for shard in reduction.shards():
        net.get_buffer("seen")[1, 1] += (seen or {}).get(shard, 0)
        generator = torch.Generator().manual_seed(shard)
        reduction.backward(net(torch.randn(4, 4, generator=generator)).square().sum() / 32)
    reduction.finish()


def test_constants_keep_their_bits() -> None:
    net = Net()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    one_step(net)
    for name in ("mask", "constants"):
        assert torch.equal(net.get_buffer(name).view(torch.int32), before[name].view(torch.int32)), name


def test_statistics_are_the_mean_over_shards_along_the_tree() -> None:
    torch.manual_seed(0)
    net, alone = Net(), nn.BatchNorm1d(3)
    net.norm.running_var.copy_(torch.tensor([0.3, 1.7, 4e9]))
    alone.load_state_dict(net.norm.state_dict())
    leaves = []
    for shard in range(SHARDS):
        one = nn.BatchNorm1d(3)
        one.load_state_dict(alone.state_dict())
        one(net.layer(torch.randn(4, 4, generator=torch.Generator().manual_seed(shard))))
        leaves.append(one.running_var)
    one_step(net)
    while len(leaves) > 1:
        leaves = [left + right for left, right in zip(leaves[::2], leaves[1::2], strict=True)]
    assert torch.equal(net.norm.running_var, leaves[0] / SHARDS)


def test_integers_count_steps() -> None:
    net = Net()
    one_step(net, dict.fromkeys(range(SHARDS), 5))
    one_step(net)
    assert int(net.norm.num_batches_tracked) == 2
    assert net.get_buffer("seen").tolist() == [[0, 0, 0], [0, 5, 0]]
    assert bool(net.get_buffer("begun"))


@pytest.mark.parametrize("shard", [0, 3, SHARDS - 1])
def test_integers_that_the_shards_do_not_agree_on_are_refused(shard: int) -> None:
    with pytest.raises(UsageError, match=r"integers or booleans in the model's buffers \(seen\).* make them float32"):
        one_step(Net(), {shard: 1})


@pytest.mark.parametrize("world_size", [2, 3, 4096])
def test_one_rank_that_differs_is_noticed(world_size: int) -> None:
    """float32 sums, as those of the tree are."""
    nets = [Net(), Net()]
    ranks = [Counters(net) for net in nets]
    for net, counters, value in zip(nets, ranks, (0, 1), strict=True):
        counters.begin_step()
        counters.begin_shard()
        net.get_buffer("seen").fill_(value)
        counters.take()
    usual, odd = (counters.signature() for counters in ranks)
    alike = torch.tensor([usual] * world_size).sum(0).tolist()
    ranks[0].require_agreement(usual, alike, world_size)
    total = torch.tensor([usual] * (world_size - 1) + [odd]).sum(0).tolist()
    with pytest.raises(UsageError, match=r"\(seen\)"):
        ranks[1].require_agreement(odd, total, world_size)


def test_as_many_scores_as_there_is_room_for() -> None:
    net = Net()
    reduction = ExactReduction(net, Comm(0, 1, torch.device("cpu"), "none"), 2)
    scores = {f"s{number:02d}": torch.tensor(float(number)) for number in range(MAX_SCORES)}
    for _ in reduction.shards():
        reduction.backward(net(torch.ones(2, 4)).sum(), torch.tensor(3.0), scores)
    assert reduction.finish() == (6.0, {name: 2 * float(score) for name, score in scores.items()})
