"""The fixed tree gives the same bits at every world size, and every leaf counts once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starling.trainer.tree import Scratch, TreeSum, aligned_blocks, finish_tree, owned_shards, padded


@given(st.integers(0, 7), st.data())
def test_owned_ranges_cover_every_shard_once(log_shards: int, data: st.DataObject) -> None:
    shards = 1 << log_shards
    world = data.draw(st.integers(1, shards))
    owned = [shard for rank in range(world) for shard in owned_shards(rank, world, shards)]
    assert owned == list(range(shards))
    lengths = {len(owned_shards(rank, world, shards)) for rank in range(world)}
    assert max(lengths) == -(-shards // world)
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(0, 200), st.integers(1, 200))
def test_blocks_are_aligned_and_cover_the_range(start: int, length: int) -> None:
    blocks = aligned_blocks(range(start, start + length))
    covered = [index for begin, size in blocks for index in range(begin, begin + size)]
    assert covered == list(range(start, start + length))
    assert all(size & (size - 1) == 0 and begin % size == 0 for begin, size in blocks)


def test_local_sum_ends_in_exactly_the_aligned_blocks() -> None:
    tree = TreeSum()
    for shard in range(3, 13):
        tree.add(torch.ones(2), shard)
    assert [(block.start, block.size) for block in tree.blocks] == aligned_blocks(range(3, 13))


def _reduce_in_one_process(leaves: torch.Tensor, world: int) -> list[torch.Tensor]:
    """What all ranks would compute, with the collectives played in memory."""
    shards, length = leaves.shape
    width = padded(length, world)
    ranks = []
    for rank in range(world):
        tree = TreeSum()
        for shard in owned_shards(rank, world, shards):
            tree.add(torch.nn.functional.pad(leaves[shard].clone(), (0, width - length)), shard)
        ranks.append(tree.blocks)
    sent: list[torch.Tensor] = []
    slices: list[torch.Tensor] = []

    def first_pass(_out: torch.Tensor, data: torch.Tensor, _outs: list[int], ins: list[int]) -> None:
        sent.append(torch.stack([part.clone() for part in data.split(ins)]))
        raise StopIteration

    for blocks in ranks:
        with pytest.raises(StopIteration):
            finish_tree(
                blocks,
                Scratch(),
                shards=shards,
                world_size=world,
                all_to_all=first_pass,
                all_gather=lambda o, i: None,
            )

    roots = []
    for rank, blocks in enumerate(ranks):

        def exchange(out: torch.Tensor, _d: torch.Tensor, _o: list[int], _i: list[int], rank: int = rank) -> None:
            out.copy_(torch.cat([theirs[rank] for theirs in sent]))

        finish_tree(
            blocks,
            Scratch(),
            shards=shards,
            world_size=world,
            all_to_all=exchange,
            all_gather=lambda o, i: slices.append(i),
        )
    roots.append(torch.cat(slices)[:length])
    return roots


@pytest.mark.parametrize("world", [2, 3, 4, 5, 6, 7, 8])
def test_every_world_size_gives_the_same_bits(world: int) -> None:
    generator = torch.Generator().manual_seed(1)
    leaves = torch.randn(8, 1001, generator=generator) * 10 ** torch.randn(8, 1001, generator=generator)
    alone = TreeSum()
    for shard in range(8):
        alone.add(leaves[shard].clone(), shard)
    (root,) = _reduce_in_one_process(leaves, world)
    assert torch.equal(root, alone.blocks[0].sum)
    assert not torch.equal(root, leaves.flip(0).cumsum(0)[-1]), "the data must be able to tell associations apart"


class Pieces:
    """A leaf that is still in pieces."""

    def __init__(self, vector: torch.Tensor) -> None:
        self._vector = vector

    def new_vector(self) -> torch.Tensor:
        return torch.full_like(self._vector, torch.nan)

    def copy_to(self, vector: torch.Tensor) -> None:
        vector.copy_(self._vector)

    def add_to(self, vector: torch.Tensor) -> None:
        vector.add_(self._vector)


@given(st.integers(0, 8), st.integers(0, 8))
def test_leaves_in_pieces_give_the_same_blocks(begin: int, length: int) -> None:
    generator = torch.Generator().manual_seed(begin)
    leaves = torch.randn(16, 9, generator=generator) * 10 ** torch.randn(16, 9, generator=generator)
    leaves[:, 0] = -0.0
    whole, pieces = TreeSum(), TreeSum()
    for _ in range(2):  # the second time in memory of the first
        whole.clear()
        pieces.clear()
        for shard in range(begin, begin + length):
            whole.add(leaves[shard].clone(), shard)
            pieces.add_leaf(Pieces(leaves[shard]), shard)
        for one, other in zip(whole.blocks, pieces.blocks, strict=True):
            assert (one.start, one.size) == (other.start, other.size)
            assert torch.equal(one.sum.view(torch.int32), other.sum.view(torch.int32))
