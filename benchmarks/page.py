"""docs/performance.md as a pure function of the results."""

from __future__ import annotations

from typing import Any

from benchmarks.report import bound_of, goal_line

_HEAD = """\
# Performance

Every table on this page is made by `make bench`, and each by the command above it. Each compares with what one would
use instead, measured in the same run on the same machine; ratios mean more than seconds. Where a goal is missed, it
says so.
"""


def page(results: list[dict[str, Any]]) -> str:
    """Markdown of all results, in their order; each is a report's JSON form with command and machine."""
    return "\n".join([_HEAD, _goals(results), *(_section(result) for result in results)])


def _goals(results: list[dict[str, Any]]) -> str:
    rows = [_goal(result["title"], goal) for result in results for goal in result["goals"]]
    return "\n".join(["| | figure | measured | goal | reached |", "|---|---|---|---|---|", *rows, ""])


def _goal(title: str, goal: dict[str, Any]) -> str:
    bound, reached = bound_of(goal), "yes" if goal["reached"] else "**no**"
    return f"| {title} | `{goal['figure']}` | {goal['value']:.3g} | {bound} | {reached} |"


def _section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    parts = [
        f"## {result['title']}\n",
        f"{result['question']}\n",
        f"    {result['command']}\n",
        f"{machine['date']}; {machine['processor']}; {machine['memory']}; {machine['system']}; {machine['libraries']}. "
        f"It took {result['seconds']:.0f} s.\n",
        *(_table(table) for table in result["tables"]),
        *(f"* {goal_line(goal)}" for goal in result["goals"]),
        *(f"* {note}" for note in result["notes"]),
        "",
    ]
    return "\n".join(parts)


def _table(table: dict[str, Any]) -> str:
    lines = [
        f"### {table['title']}\n",
        "| " + " | ".join(table["columns"]) + " |",
        "|---" * len(table["columns"]) + "|",
        *("| " + " | ".join(row) + " |" for row in table["rows"]),
    ]
    return "\n".join([*lines, *(["", table["note"]] if table["note"] else []), ""])
