"""Tensors in files: safetensors, which hold data and nothing that could run."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file


class DamagedFile(Exception):
    """A tensor file cannot be read."""


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raises OSError, also for what safetensors reports in a class of its own (a full disk)."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises DamagedFile."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path.name}: {error}") from error


def share(tensors: dict[str, torch.Tensor], index: int, count: int) -> dict[str, torch.Tensor]:
    """The `index`-th of `count` shares of about equal bytes: contiguous in name order, together everything."""
    total = sum(t.nbytes for t in tensors.values()) or 1
    mine: dict[str, torch.Tensor] = {}
    before = 0
    for name in sorted(tensors):
        # A tensor belongs to the share in which its middle byte lies.
        if min(count - 1, (2 * before + tensors[name].nbytes) * count // (2 * total)) == index:
            mine[name] = tensors[name]
        before += tensors[name].nbytes
    return mine
