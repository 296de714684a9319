"""Spans of time as people write them."""

from __future__ import annotations

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:(?P<d>[\d.]+)d)?(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m)?(?:(?P<s>[\d.]+)s)?")


def parse_duration(value: object) -> object:
    """Turn "1h30m", "45s", "2d" or plain seconds into seconds; anything else is refused."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('should be a duration like "12h", "1h30m", "45s", or a number of seconds')
    if not isinstance(value, str):
        return float(value)
    match = _DURATION.fullmatch(value.replace(" ", ""))
    try:
        parts = {unit: float(number) for unit, number in match.groupdict().items() if number} if match else {}
    except ValueError:
        parts = {}
    if not parts:
        raise ValueError(f'{value!r} is no duration; write "12h", "1h30m", "45s", "2d", or a number of seconds')
    return sum(number * _UNITS[unit] for unit, number in parts.items())
