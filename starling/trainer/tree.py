"""The fixed tree: sums V leaves in one association, whoever owns which leaves.

A global batch is cut into V virtual shards (V a power of two). Every rank owns a contiguous range of them and sums
what it can: the maximal *aligned* blocks of its range. The rest of the tree is finished slice by slice, one slice a
rank, and gathered. Since every inner node is always `left + right` of the same two halves, the sum has the same bits
at every world size from 1 to V. For power-of-two worlds every rank sends exactly one block, so the traffic equals
that of a ring all-reduce. The idea of virtual workers is EasyScale's (SC 2023); the tree is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


def owned_shards(rank: int, world_size: int, shards: int) -> range:
    """The contiguous range of virtual shards of a rank; ranges differ in length by at most one."""
    return range(rank * shards // world_size, (rank + 1) * shards // world_size)


def aligned_blocks(owned: range) -> list[tuple[int, int]]:
    """Cut a range into its maximal aligned power-of-two blocks, as (start, size) in ascending order."""
    blocks: list[tuple[int, int]] = []
    start = owned.start
    while start < owned.stop:
        size = start & -start or 1 << (owned.stop - 1).bit_length()
        while start + size > owned.stop:
            size //= 2
        blocks.append((start, size))
        start += size
    return blocks


@dataclass(slots=True)
class Block:
    """The sum over virtual shards [start, start + size), a node of the tree."""

    start: int
    size: int
    sum: torch.Tensor


class TreeSum:
    """Sums consecutive leaves (or aligned blocks) of the tree; holds at most log2(V) + 1 vectors."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._spare: list[torch.Tensor] = []

    def add(self, vector: torch.Tensor, start: int, size: int = 1) -> None:
        """Add the sum over [start, start + size), which must follow what was added last.

        The vector is the tree's from now on, to add to and to keep as a spare.
        """
        self.blocks.append(Block(start, size, vector))
        while len(self.blocks) > 1 and _siblings(self.blocks[-2], self.blocks[-1]):
            right = self.blocks.pop()
            self.blocks[-1].sum.add_(right.sum)
            self.blocks[-1].size *= 2
            self._spare.append(right.sum)

    def add_leaf(self, leaf: Leaf, start: int) -> None:
        """Add one virtual shard, straight onto its left sibling if that is here: one pass over memory, same bits."""
        if start % 2 and self.blocks and (self.blocks[-1].start, self.blocks[-1].size) == (start - 1, 1):
            left = self.blocks.pop()
            leaf.add_to(left.sum)
            self.add(left.sum, left.start, 2)
        else:
            vector = self._spare.pop() if self._spare else leaf.new_vector()
            leaf.copy_to(vector)
            self.add(vector, start)

    def clear(self) -> None:
        """Forget the sums, keep their memory."""
        self._spare += [block.sum for block in self.blocks]
        self.blocks = []


class Leaf(Protocol):
    """One virtual shard's vector, still in pieces."""

    def new_vector(self) -> torch.Tensor: ...

    def copy_to(self, vector: torch.Tensor) -> None: ...

    def add_to(self, vector: torch.Tensor) -> None:
        """Element for element `vector + piece`."""
        ...


class Scratch:
    """Vectors that are kept from one reduction to the next: touching fresh memory costs more than adding it up."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def vector(self, name: str, length: int, like: torch.Tensor) -> torch.Tensor:
        """Of the type and device of `like`; its content is whatever was there before."""
        kept = self._kept.get(name)
        if kept is None or (kept.numel(), kept.dtype, kept.device) != (length, like.dtype, like.device):
            kept = self._kept[name] = like.new_empty(length)
        return kept


def _siblings(left: Block, right: Block) -> bool:
    return left.size == right.size and left.start % (2 * left.size) == 0 and left.start + left.size == right.start


AllToAll = Callable[[torch.Tensor, torch.Tensor, list[int], list[int]], None]
"""(output, input, output split sizes, input split sizes): as torch.distributed.all_to_all_single."""
AllGather = Callable[[torch.Tensor, torch.Tensor], None]
"""(output, input): as torch.distributed.all_gather_into_tensor."""


def padded(length: int, world_size: int) -> int:
    """Length of a vector that can be cut into equal slices, one a rank."""
    return -(-length // world_size) * world_size


def finish_tree(
    blocks: list[Block],
    scratch: Scratch,
    *,
    shards: int,
    world_size: int,
    all_to_all: AllToAll,
    all_gather: AllGather,
) -> torch.Tensor:
    """Sum all ranks' blocks to the root of the tree; every rank returns the same vector.

    `blocks` are this rank's maximal aligned blocks; their vectors' length is a multiple of `world_size`. Their content
    is lost: the root lies where the first one's sum was.
    """
    if world_size == 1:
        return blocks[0].sum
    root = blocks[0].sum
    piece = root.numel() // world_size
    layout = [aligned_blocks(owned_shards(rank, world_size, shards)) for rank in range(world_size)]
    outgoing = _interleave([block.sum for block in blocks], world_size, scratch)
    incoming = scratch.vector("incoming", sum(len(theirs) for theirs in layout) * piece, root)
    all_to_all(incoming, outgoing, [len(theirs) * piece for theirs in layout], [len(blocks) * piece] * world_size)

    tree = TreeSum()
    positions = [position for theirs in layout for position in theirs]
    for (start, size), part in zip(positions, incoming.split(piece), strict=True):
        tree.add(part, start, size)
    all_gather(root, tree.blocks[0].sum)
    return root


def _interleave(vectors: list[torch.Tensor], world_size: int, scratch: Scratch) -> torch.Tensor:
    """Order the slices by destination: for every rank, its slice of every vector."""
    if len(vectors) == 1:
        return vectors[0]
    outgoing = scratch.vector("outgoing", sum(vector.numel() for vector in vectors), vectors[0])
    torch.stack([v.view(world_size, -1) for v in vectors], dim=1, out=outgoing.view(world_size, len(vectors), -1))
    return outgoing
