"""Tensors in files: safetensors, which hold data and nothing that could run.

A file is the length of a header (8 bytes, little-endian), the header (JSON: name -> type, shape, and where the bytes
lie), and the tensors' bytes without gaps. Written and read in place here, so that a state goes to a file or a store
straight from the memory it is in, and comes back into memory that is its own; any safetensors library reads the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from starling.trainer.memory import big_memory, bytes_of, tensor_in

MAX_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class DamagedFile(Exception):
    """A tensor file cannot be read."""


def file_pieces(tensors: dict[str, torch.Tensor]) -> list[memoryview]:
    """The file's content, one piece after the other, without copying what is contiguous.

    Raises:
        ValueError: the format has no word for a tensor's type.
    """
    # Widest types first, as the format's own library does: then every tensor lies where its type must.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _name_of(tensors[name]),
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = memoryview(len(text).to_bytes(8, "little") + text)
    return [head, *(bytes_of(tensors[name].contiguous()) for name in order if tensors[name].nbytes)]


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raises OSError."""
    with path.open("wb") as file:
        for piece in file_pieces(tensors):
            file.write(piece)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises DamagedFile."""
    try:
        with path.open("rb") as file:
            memory = big_memory(path.stat().st_size)
            count = file.readinto(bytes_of(memory))
    except OSError as error:
        raise DamagedFile(f"{path.name}: {error}") from error
    try:
        return tensors_in(memory[:count])
    except DamagedFile as error:
        raise DamagedFile(f"{path.name}: {error}") from error


def tensors_in(memory: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a file that was read into memory (uint8), in place. Raises DamagedFile."""
    content = bytes_of(memory)
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(MAX_HEADER, len(content) - 8):
        raise DamagedFile("it is cut short, or no safetensors file")
    try:
        header = json.loads(bytes(content[8 : 8 + length]))
        header.pop("__metadata__", None)
        return {name: _tensor(memory, 8 + length, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise DamagedFile(f"its header makes no sense: {error}") from error


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


def _name_of(tensor: torch.Tensor) -> str:
    try:
        return _NAMES[tensor.dtype]
    except KeyError:
        raise ValueError(f"a checkpoint cannot hold tensors of type {tensor.dtype}") from None


def _tensor(memory: torch.Tensor, data: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> torch.Tensor:
    begin, end = data_offsets
    tensor = tensor_in(memory, data + begin, tuple(shape), DTYPES[dtype])
    if begin < 0 or tensor.nbytes != end - begin:
        raise ValueError(f"{end - begin} bytes for a tensor of {tensor.nbytes}")
    return tensor
