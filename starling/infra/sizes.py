"""Sizes in bytes, the way people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, **{f"{letter}iB": 1 << (10 * power) for power, letter in enumerate("KMGT", start=1)}}


def parse_size(value: object) -> object:
    """ "32MiB" -> bytes; numbers pass through. Raises ValueError that says how to write it."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]iB|B)?", value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no size; write 32MiB, 1.5GiB or a number of bytes")
    return round(float(found[1]) * _UNITS[found[2] or ""])
