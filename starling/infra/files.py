"""Small files that processes talk through: written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` so that a reader sees the old or the new content, never half of it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)  # a full disk would otherwise fill up with what was left of each try
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` of one JSON document."""
    write_atomically(path, json.dumps(value).encode())


def read_json(path: Path) -> Any | None:
    """The JSON document in `path`; None if there is no such file. Raises ValueError if it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
