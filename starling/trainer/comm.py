"""The process group of one round: a few collectives, and one error for "a peer is gone".

Collectives are called from the training thread only, in the same order on every rank.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from starling.infra.processes import SHARED_MACHINE
from starling.trainer.tree import Block, Scratch, finish_tree

# torch 2.13 renamed these collectives; 2.11 and 2.12 have the old names only.
all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


LISTENER_PATIENCE = 5.0
"""Seconds to ask closely for rank 0; after that torch's own client asks, at its pace."""


FROM_A_COLLECTIVE = re.compile(r"\bgloo/|\bNCCL\b|^Operation timed out")
"""What is in the text of the bare RuntimeErrors that collectives raise: gloo's name the line of its source."""


class PeerLost(Exception):
    """A collective failed: some peer died, left, or timed out. The round is over; its members form a new one."""


class Comm:
    """What the loop needs of its peers; does nothing at world size 1."""

    def __init__(self, rank: int, world_size: int, device: torch.device, backend: str) -> None:
        self.rank = rank
        self.world_size = world_size
        self._device = device
        self._backend = backend
        # gloo moves CPU memory only: ranks that share one GPU stage through the host.
        self._via_host = backend == "gloo" and device.type != "cpu"
        self._control = dist.group.WORLD if backend == "gloo" or world_size == 1 else _control_group()

    def reduce_tree(self, blocks: list[Block], shards: int, scratch: Scratch) -> torch.Tensor:
        """Finish the fixed tree over all ranks' blocks; see `tree.finish_tree`."""
        with peer_errors():
            return finish_tree(
                blocks,
                scratch,
                shards=shards,
                world_size=self.world_size,
                all_to_all=self._all_to_all,
                all_gather=self._all_gather,
            )

    def all_gather(self, output: torch.Tensor, data: torch.Tensor) -> None:
        """Every rank's tensor, all of one shape, one after another along the first dimension; on this rank's device.
        `data` may be this rank's part of `output`."""
        with peer_errors():
            self._all_gather(output, data)

    def reduce_scatter(self, output: torch.Tensor, data: torch.Tensor) -> None:
        """Rank r gets the sum over all ranks of the r-th of `world_size` equal parts of `data`."""
        with peer_errors():
            self._reduce_scatter(output, data)

    def vote(self, *ballots: int) -> list[int]:
        """Element-wise maximum over all ranks."""
        tensor = torch.tensor(ballots, dtype=torch.int64)
        if self.world_size > 1:
            with peer_errors():
                dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._control)
        return [int(value) for value in tensor.tolist()]

    def gather_ints(self, *values: int) -> list[list[int]]:
        """Every rank's values, in rank order."""
        mine = torch.tensor(values, dtype=torch.int64)
        if self.world_size == 1:
            return [list(values)]
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        with peer_errors():
            dist.all_gather(rows, mine, group=self._control)
        return [[int(value) for value in row.tolist()] for row in rows]

    def broadcast_bytes(self, data: bytes | None, source: int) -> bytes:
        """Send bytes from one rank to all; only the source passes them."""
        if self.world_size == 1:
            assert data is not None
            return data
        size = torch.tensor([len(data) if data is not None else 0], dtype=torch.int64)
        with peer_errors():
            dist.broadcast(size, source, group=self._control)
            payload = torch.empty(int(size.item()), dtype=torch.uint8)
            if self.rank == source:
                assert data is not None
                payload = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.broadcast(payload, source, group=self._control)
        return payload.numpy().tobytes()

    def broadcast_tensor(self, tensor: torch.Tensor, source: int) -> None:
        """Overwrite a CPU tensor with the source's."""
        if self.world_size > 1 and tensor.numel():
            with peer_errors():
                dist.broadcast(tensor.view(-1).view(torch.uint8), source, group=self._control)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.vote(0)

    def _all_to_all(
        self, output: torch.Tensor, data: torch.Tensor, output_splits: list[int], input_splits: list[int]
    ) -> None:
        if not self._via_host:
            dist.all_to_all_single(output, data, output_splits, input_splits)
            return
        staged = torch.empty(output.shape, dtype=output.dtype)
        dist.all_to_all_single(staged, data.cpu(), output_splits, input_splits)
        output.copy_(staged)

    def _reduce_scatter(self, output: torch.Tensor, data: torch.Tensor) -> None:
        if not self._via_host:
            reduce_scatter_single(output, data)
            return
        staged = torch.empty(output.shape, dtype=output.dtype)
        reduce_scatter_single(staged, data.cpu())
        output.copy_(staged)

    def _all_gather(self, output: torch.Tensor, data: torch.Tensor) -> None:
        if self._backend == "nccl":
            all_gather_single(output, data)
        elif self._via_host:
            staged = torch.empty(output.shape, dtype=output.dtype)
            self._gather_slices(staged, data.cpu())
            output.copy_(staged)
        else:
            self._gather_slices(output, data)

    def _gather_slices(self, output: torch.Tensor, data: torch.Tensor) -> None:
        """All-gather by sending to everybody: gloo's own gathers into a copy first, at three times the CPU time."""
        slices = output.chunk(self.world_size)
        slices[self.rank].copy_(data)
        others = [(self.rank + distance) % self.world_size for distance in range(1, self.world_size)]
        receiving = [dist.irecv(slices[peer], peer) for peer in reversed(others)]
        sending = [dist.isend(data, peer) for peer in others]
        for work in (*receiving, *sending):
            if work is not None:
                work.wait()


@contextlib.contextmanager
def process_group(rank: int, world_size: int, device: torch.device, timeout: float) -> Iterator[Comm]:
    """Join the round's process group (address and port from the environment) for the length of a `with`.

    `timeout` (seconds) bounds every collective, so it must exceed the longest difference between ranks' step times.
    """
    if world_size == 1:
        yield Comm(rank, world_size, device, "none")
        return
    backend = "nccl" if device.type == "cuda" and _own_gpus(world_size) else "gloo"
    if rank != 0:
        _await_listener(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    with peer_errors():
        dist.init_process_group(
            backend, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout), init_method="env://"
        )
    # Not destroyed on errors: a broken group's destructors can hang, and the process is about to exit.
    yield Comm(rank, world_size, device, backend)
    dist.destroy_process_group()


def _await_listener(address: str, port: int) -> None:
    """Until rank 0 listens, or for a while: torch's own client, once refused, pauses for far longer than that takes."""
    give_up_at = time.monotonic() + LISTENER_PATIENCE
    while time.monotonic() < give_up_at:
        try:
            socket.create_connection((address, port), timeout=1.0).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
        except OSError:
            return  # torch's client will say what is wrong


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Turn what collectives raise into PeerLost.

    gloo raises bare RuntimeErrors, NCCL and the bootstrap store DistErrors (RuntimeErrors too), so the place of the
    call, not the text of the message, decides. Memory that has run out is this process' own error.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _peer_lost(error) from error


@contextlib.contextmanager
def peer_errors_among_others() -> Iterator[None]:
    """As `peer_errors`, where collectives run in the midst of other code, such as a model's: what is not known to come
    from a collective passes as it is. So the text must decide here."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not FROM_A_COLLECTIVE.search(str(error)):
            raise
        raise _peer_lost(error) from error


def _peer_lost(error: RuntimeError) -> PeerLost:
    return PeerLost(str(error).splitlines()[0])


def _control_group() -> Any:
    with peer_errors():
        return dist.new_group(backend="gloo")


def _own_gpus(world_size: int) -> bool:
    """Whether no two ranks share a GPU, which NCCL does not put up with. Local nodes all choose the same ones."""
    on_this_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if SHARED_MACHINE in os.environ and world_size > on_this_node:
        return False
    return torch.cuda.device_count() >= on_this_node
