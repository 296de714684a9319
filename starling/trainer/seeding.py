"""Seeds as pure functions of what they are for, never of a rank."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A stable 63-bit seed from these parts (BLAKE2b over their text), equal on every machine and Python."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed every torch generator (CPU and CUDA)."""
    torch.manual_seed(derive_seed(*parts))
