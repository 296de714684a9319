"""Two kinds of output: one JSON document on stdout, or text for people there; everything else goes to stderr."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any


def emit(document: Any) -> None:
    """The one JSON document."""
    print(json.dumps(document, indent=2))


def say(text: str) -> None:
    """For people, on stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """What is not the answer: progress, hints, warnings; on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[list[str]]) -> str:
    """Left-aligned columns; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def clock_time(at: float | None) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at is not None else "-"


def span(seconds: float | None) -> str:
    """A duration as people write it: 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def size(count: int) -> str:
    """Bytes as people write them."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def money(dollars: float | None) -> str:
    if dollars is None:
        return "-"
    if dollars < 0:
        return f"-{money(-dollars)}"
    return f"${dollars:.2f}" if dollars >= 1 or dollars == 0 else f"${dollars:.4f}"
