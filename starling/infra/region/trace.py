"""Spot traces: how much could be had of a zone, measured once, played again.

The form is that of github.com/skypilot-org/spot-traces (of the paper "Can't Be Late", NSDI 2024):

    {"metadata": {"gap_seconds": 300}, "data": [0, 1, 1, 4, ...]}

What the numbers mean is not in the files. That project's README says that each is the number of instances that could be
had; the simulator of the same authors takes those with one node the other way round, 1 for "cannot be had". So it must
be said, in the file (`metadata.values`) or beside it:

    count       so many instances can run
    available   1: any number can run; 0: none
    preempted   0: any number can run; 1: none
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starling.infra.errors import UsageError
from starling.infra.region.script import Capacity, Timed

_MEANINGS: dict[str, Callable[[int], int | None]] = {
    "count": lambda value: value,
    "available": lambda value: None if value else 0,
    "preempted": lambda value: 0 if value else None,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Capacity of one zone's spot market over time."""

    zone: str
    gap_seconds: float
    counts: tuple[int | None, ...]
    """How many instances of each type can run in each gap; None: any number."""


def read_trace(text: str) -> Trace:
    """From `ZONE=FILE` or `ZONE=MEANING:FILE`. Raises UsageError."""
    zone, separator, rest = text.partition("=")
    if not separator or not zone or not rest:
        raise UsageError(f"--trace {text}: write ZONE=FILE, such as us-east-1a=count:trace.json")
    meaning, colon, name = rest.partition(":")
    if not colon or meaning not in _MEANINGS:
        meaning, name = "", rest
    try:
        document = json.loads(Path(name).read_text())
        gap, data = float(document["metadata"]["gap_seconds"]), document["data"]
        told = meaning or document["metadata"].get("values", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name} is no spot trace ({error!r}); {_FORM}") from error
    return _trace(zone, gap, data, told, name)


def as_script(traces: Sequence[Trace]) -> tuple[Timed, ...]:
    """Each change of a trace's capacity as an action, in order of time."""
    changes = [
        Timed(at=number * trace.gap_seconds, action=Capacity(zone=trace.zone, nodes=count))
        for trace in traces
        for number, count in enumerate(trace.counts)
        if number == 0 or count != trace.counts[number - 1]
    ]
    return tuple(sorted(changes, key=lambda each: each.at))


_FORM = 'it should look like {"metadata": {"gap_seconds": 300, "values": "count"}, "data": [0, 1, 1]}'


def _trace(zone: str, gap: float, data: object, meaning: str, name: str) -> Trace:
    if meaning not in _MEANINGS:
        raise UsageError(
            f"{name} does not say what its numbers mean: write --trace {zone}=MEANING:{name}, where MEANING is count"
            " (so many instances can run), available (1: they can be had), or preempted (1: they cannot be had)"
        )
    whole = isinstance(data, list) and all(type(value) is int and value >= 0 for value in data)
    if not isinstance(data, list) or not data or not whole or gap <= 0:
        raise UsageError(f"{name} is no spot trace: its data must be whole numbers from 0; {_FORM}")
    if meaning != "count" and max(data) > 1:
        raise UsageError(
            f"{name} has a {max(data)}, so its numbers are no yes or no: {meaning} cannot be meant, but count"
        )
    return Trace(zone=zone, gap_seconds=gap, counts=tuple(map(_MEANINGS[meaning], data)))
