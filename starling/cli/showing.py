"""`list`, `status`, `result` and `events`: look once, print, end."""

from __future__ import annotations

from typing import Any

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import clock_time, emit, money, say, span, table
from starling.cli.result_text import cost_text, result_text, snapshot_text
from starling.infra.errors import StarlingError
from starling.infra.store import Store
from starling.orchestrator.reading import list_runs
from starling.orchestrator.report import result, run_state, status


def list_verb(store_uri: str | None, *, as_json: bool) -> None:
    store = store_for(store_uri)
    told = [_status_of(store, run) for run in list_runs(store)]
    if as_json:
        emit({"runs": told})
        return
    if not told:
        say(f"{store.uri} holds no runs")
        return
    rows = [["run", "state", "step", "nodes", "interruptions", "cost", "created"]]
    rows += [
        [
            entry["run"],
            _state(entry),
            "-" if entry.get("step") is None else f"{entry['step']}/{entry.get('total_steps') or '-'}",
            str(len(entry.get("nodes", []))),
            str(entry.get("interruptions", "-")),
            money(entry.get("cost")),
            clock_time(entry.get("created_at")),
        ]
        for entry in told
    ]
    say(table(rows))


def status_verb(run: str, store_uri: str | None, *, as_json: bool) -> None:
    view = OpenRun(store_for(store_uri), run).view()
    told = status(view)
    if as_json:
        emit(told)
    else:
        say(status_text(told))


def result_verb(run: str, store_uri: str | None, *, as_json: bool) -> int:
    view = OpenRun(store_for(store_uri), run).view()
    told = result(view)
    if as_json:
        emit(told)
    else:
        say(result_text(told))
    return run_state(view.facts, view.now).exit_code


def events_verb(run: str, store_uri: str | None, *, as_json: bool) -> None:
    from starling.cli.live import event_line

    events = OpenRun(store_for(store_uri), run).events()
    if as_json:
        emit({"run": run, "events": [event.model_dump(mode="json") for event in events]})
        return
    for event in events:
        say(event_line(event))


def status_text(told: dict[str, Any]) -> str:
    """A status for people."""
    from starling.cli.live import headline

    lines = [headline(told)]
    if told["reason"]:
        lines.append(f"reason: {told['reason']}")
    if saved := told["checkpoint"]:
        lines.append(f"checkpoint: step {saved['step']} at {clock_time(saved['committed_at'])}, {saved['uri']}")
    if "snapshot" in told:
        lines += [snapshot_text(told["snapshot"]), f"interruptions: {told['interruptions']}"]
    else:
        lines.append(f"interruptions: {told['interruptions']}, steps redone: {told['steps_redone']}")
    if told["data_wait_share"] is not None:
        lines.append(f"waiting for data: {told['data_wait_share']:.0%} of the step time")
    lines += [_need_text(name, need) for name, need in told["needs"].items()]
    if told["nodes"]:
        rows = [["node", "state", "type", "zone", "market", "address", "since"]]
        rows += [
            [
                node["id"],
                node["state"],
                node["instance_type"],
                node["zone"],
                node["market"],
                node["address"] or "-",
                clock_time(node["launched_at"]),
            ]
            for node in told["nodes"]
        ]
        lines.append(table(rows))
    if told["ledger"]:
        lines += [ledger_table(told["ledger"]), f"cost: {cost_text(told)}"]
    return "\n".join(lines)


def _state(told: dict[str, Any]) -> str:
    """With what a run that has not begun waits for."""
    waits = [need["run"] for need in told.get("needs", {}).values() if need["state"] != "done"]
    return f"{told['state']} (waits for {', '.join(waits)})" if told["state"] == "pending" and waits else told["state"]


def _need_text(name: str, need: dict[str, Any]) -> str:
    step = f", step {need['step']}" if need["step"] is not None else ""
    total = f" of {need['total_steps']}" if step and need["total_steps"] else ""
    return f"needs {name}: run {need['run']}, {need['state']}{step}{total}"


def ledger_table(bills: list[dict[str, Any]]) -> str:
    """Every node's bill; beside it, where that is known for any, what it would have cost on demand."""
    known = any(bill["on_demand_cost"] is not None for bill in bills)
    rows = [["ledger", "from", "to", "ran", "cost", *(["on demand", "saved"] if known else [])]]
    for bill in bills:
        row = [bill["id"], clock_time(bill["from"]), clock_time(bill["to"]), span(bill["seconds"]), money(bill["cost"])]
        rows.append([*row, *([money(bill["on_demand_cost"]), money(bill["saving"])] if known else [])])
    return table(rows)


def _status_of(store: Store, run: str) -> dict[str, Any]:
    """A run that cannot be read must not hide the others."""
    try:
        return status(OpenRun(store, run).view())
    except StarlingError as error:
        return {"run": run, "state": "unreadable", "reason": str(error)}
