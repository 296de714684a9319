"""Buffers that no mean can be taken of, integers and booleans: every virtual shard must make the same of them.

`num_batches_tracked`, which counts steps, is such a buffer. One that depends on the samples (how often each class was
seen) is none: whose shard's numbers it kept would depend on the world size.
"""

from __future__ import annotations

import zlib

import torch

from starling.infra.errors import UsageError
from starling.trainer.memory import bytes_of

SIGNATURE = 4
"""Numbers of a signature: whether a rank's own shards differ, then a checksum in pieces."""
PIECE = 11
"""Bits of a piece; float32 holds the sum of thousands of ranks' pieces exactly."""


class Counters:
    """The integer and boolean buffers of a model during a step, and whether all virtual shards agree on them."""

    def __init__(self, model: torch.nn.Module) -> None:
        by_type: dict[torch.dtype, dict[str, torch.Tensor]] = {}
        for name, buffer in model.named_buffers():
            if not buffer.dtype.is_floating_point:
                by_type.setdefault(buffer.dtype, {})[name] = buffer
        self._groups = list(by_type.values())
        """Of one type each, so that a group is compared at once."""
        self._before = [[buffer.clone() for buffer in group.values()] for group in self._groups]
        self._first: list[torch.Tensor] = []
        self._differs: list[torch.Tensor] = []

    def begin_step(self) -> None:
        """Remember what every shard of this step starts from."""
        for kept, group in zip(self._before, self._groups, strict=True):
            for each, buffer in zip(kept, group.values(), strict=True):
                each.copy_(buffer)
        self._first = []

    def begin_shard(self) -> None:
        """Put the buffers back to where the step began."""
        for kept, group in zip(self._before, self._groups, strict=True):
            for each, buffer in zip(kept, group.values(), strict=True):
                buffer.copy_(each)

    def take(self) -> None:
        """Compare what a shard left with what this rank's first shard of the step did. Does not wait for the device."""
        now = [_flat(group) for group in self._groups]
        if not self._first:
            self._first = now
            self._differs = [torch.zeros_like(each, dtype=torch.bool) for each in now]
        for differs, first, each in zip(self._differs, self._first, now, strict=True):
            differs.logical_or_(first != each)

    def signature(self) -> list[float]:
        """What this rank adds to the sum of all ranks' signatures, for `require_agreement`."""
        if not self._groups:
            return [0.0] * SIGNATURE
        checksum = 0
        for first in self._first:
            checksum = zlib.crc32(bytes_of(first.cpu()), checksum)
        pieces = [checksum >> PIECE * piece & (1 << PIECE) - 1 for piece in range(SIGNATURE - 1)]
        return [float(any(bool(differs.any()) for differs in self._differs)), *map(float, pieces)]

    def require_agreement(self, mine: list[float], total: list[float], world_size: int) -> None:
        """Compare this rank's signature with the sum of all ranks': if they are not all equal, it does not fit on at
        least one of them.

        Raises:
            UsageError: the virtual shards of the step left different values.
        """
        own_differ, *pieces = mine
        if total == [0.0, *(world_size * piece for piece in pieces)]:
            return
        names = self._differing() if own_differ else self._changed()
        raise UsageError(
            f"the virtual shards of a step left different integers or booleans in the model's buffers "
            f"({', '.join(names)}), so what is kept would depend on the number of ranks; make them float32, of which "
            "the mean over the shards is kept, or plain attributes if nothing needs them in the next step, or choose "
            "training.exact: false (with strategy: replicated)"
        )

    def _differing(self) -> list[str]:
        """Names of the buffers that this rank's shards left different values in."""
        return [
            name
            for group, differs in zip(self._groups, self._differs, strict=True)
            for name, part in zip(group, differs.split([b.numel() for b in group.values()]), strict=True)
            if part.any()
        ]

    def _changed(self) -> list[str]:
        """Names of the buffers that are not what they were when the step began."""
        return [
            name
            for group, kept in zip(self._groups, self._before, strict=True)
            for (name, buffer), before in zip(group.items(), kept, strict=True)
            if not torch.equal(buffer, before)
        ]


def _flat(group: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in group.values()])
