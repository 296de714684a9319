"""A run's result for people."""

from __future__ import annotations

from typing import Any

from starling.cli.output import money, span


def result_text(told: dict[str, Any]) -> str:
    """Of what `result --json` prints."""
    lines = [f"run {told['run']} is {told['state']} at step {told['step']}"]
    if told.get("error"):
        lines += [f"error: {told['error']}", *((told.get("traceback") or "").rstrip().splitlines())]
    if told.get("reason"):
        lines.append(f"reason: {told['reason']}")
    if told.get("metrics"):
        lines.append("metrics: " + ", ".join(f"{name} {_number(value)}" for name, value in told["metrics"].items()))
    if told.get("checkpoint"):
        lines.append(f"checkpoint: {told['checkpoint']['uri']}")
    for name in ("weights_sha256", "state_sha256"):
        if told.get(name):
            lines.append(f"{name}: {told[name]}")
    lines.append(
        f"interruptions: {told['interruptions']}, steps redone: {told['steps_redone']}, cost: {money(told['cost'])}"
    )
    lines += [
        f"  {recovery['kind']} {recovery['node'] or ''}: "
        + (f"next step after {span(recovery['seconds'])}" if recovery["seconds"] is not None else "no step since")
        for recovery in told["recoveries"]
    ]
    if not told["exact"]:
        lines.append("not exact: the result depends on what happened to its nodes")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
