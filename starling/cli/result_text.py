"""A run's result for people."""

from __future__ import annotations

from typing import Any

from starling.cli.output import clock_time, money, size, span


def result_text(told: dict[str, Any]) -> str:
    """Of what `result --json` prints."""
    script = "snapshot" in told
    lines = [f"run {told['run']} is {told['state']}" + ("" if script else f" at step {told['step']}")]
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
    if script:
        lines.append(snapshot_text(told["snapshot"]))
    redone = "" if script else f", steps redone: {told['steps_redone']}"
    lines.append(f"interruptions: {told['interruptions']}{redone}, cost: {cost_text(told)}")
    sign = "sign of life" if script else "step"
    lines += [
        f"  {recovery['kind']} {recovery['node'] or ''}: "
        + (f"next {sign} after {span(recovery['seconds'])}" if recovery["seconds"] is not None else f"no {sign} since")
        for recovery in told["recoveries"]
    ]
    if told.get("exact") is False:
        lines.append("not exact: the result depends on what happened to its nodes")
    return "\n".join(lines)


def cost_text(told: dict[str, Any]) -> str:
    """What a run cost, and what it saved, if that is known."""
    full, saving = told.get("on_demand_cost"), told.get("saving")
    if full is None or saving is None:
        return money(told["cost"])
    share = f", {abs(saving) / full:.0%} {'saved' if saving >= 0 else 'more'}" if full > 0 else ""
    return f"{money(told['cost'])} ({money(full)} on demand{share})"


def snapshot_text(told: dict[str, Any] | None) -> str:
    """The newest snapshot of a script's folder in one line."""
    if told is None:
        return "snapshot: none yet"
    return (
        f"snapshot: {told['number']} at {clock_time(told['at'])} ({span(told['age'])} ago), "
        f"{told['files']} files, {size(told['bytes'])}, {told['uri']}"
    )


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
