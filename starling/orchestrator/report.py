"""What `status`, `list` and `result` say: pure over facts, events and the newest checkpoint's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starling.infra.records import Event, EventKind, NodeState, Progress, RunState
from starling.infra.snapshots.records import Snapshot
from starling.orchestrator.facts import FRESH_SECONDS, Facts, NodeFacts
from starling.orchestrator.interruptions import Recovery, interruptions, recoveries, steps_redone
from starling.orchestrator.ledger import Bill, ledger, total
from starling.orchestrator.needs import NeedFacts, waits_for

_KNOWN_TO_OUR_TRAINER = (
    *("step", "steps_redone", "exact", "checkpoint", "metrics"),
    *("weights_sha256", "state_sha256"),
)
"""What the result of a script does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """All that a report is made from."""

    facts: Facts
    events: tuple[Event, ...]
    """Oldest first."""
    manifest: Mapping[str, Any] | None
    """Of the newest committed checkpoint."""
    checkpoint_uri: str | None
    now: float
    snapshot: Snapshot | None = None
    """Of a script's folder: the newest."""
    snapshot_uri: str | None = None


def run_state(facts: Facts, now: float) -> RunState:
    """Derived, never stored."""
    if facts.verdict is not None:
        return facts.verdict.state
    if facts.run.stop is not None:
        return RunState.STOPPING
    return RunState.RUNNING if any(node.trains(now) for node in facts.current) else RunState.PENDING


def status(view: View) -> dict[str, Any]:
    """One run as `status --json` prints it."""
    facts, now = view.facts, view.now
    state = run_state(facts, now)
    live = _newest_progress(facts, now, fresh_only=True)
    last = live or _newest_progress(facts, now, fresh_only=False)
    shown = live or (last if state.final else None)
    told = {
        "run": facts.run.run,
        "state": state.value,
        "reason": _reason(view),
        "step": _step(view, last),
        "total_steps": last.total_steps if last else None,
        "epoch": max(last.epoch if last else 0, int((view.manifest or {}).get("epoch", 0))),
        "round": last.round if last else None,
        "world_size": shown.world_size if shown else 0,
        "loss": last.loss if last else None,
        "step_seconds": last.step_seconds if last else None,
        "data_wait_share": last.data_wait_share if last else None,
        "exact": exact(view),
        "nodes": [_node(node, now) for node in facts.present],
        "checkpoint": checkpoint(view, committed_at=True),
        "interruptions": len(interruptions(view.events)),
        "steps_redone": steps_redone(view.events),
        **_money(facts, now),
        "needs": {need.name: _need(need) for need in facts.needs},
        "incarnation": facts.run.incarnation,
        "created_at": facts.run.created_at,
    }
    return told | _of_script(view) if facts.spec.command is not None else told


def result(view: View) -> dict[str, Any]:
    """How a run ended, or how far it is, as `result --json` and `run --json` print it."""
    facts = view.facts
    state = run_state(facts, view.now)
    given = dict(facts.verdict.result or {}) if facts.verdict else {}
    manifest = view.manifest or {}
    told: dict[str, Any] = {
        "run": facts.run.run,
        "state": state.value,
        "step": _step(view, _newest_progress(facts, view.now, fresh_only=False)),
        "weights_sha256": given.get("weights_sha256") or manifest.get("weights_sha256"),
        "state_sha256": given.get("state_sha256") or manifest.get("state_sha256"),
        "checkpoint": given.get("checkpoint") or checkpoint(view),
        "metrics": given.get("metrics") or _metrics(manifest),
        "exact": exact(view),
        "interruptions": len(interruptions(view.events)),
        "steps_redone": steps_redone(view.events),
        "recoveries": [_recovery(recovery) for recovery in recoveries(view.events)],
        **_money(facts, view.now),
    }
    told |= {key: value for key, value in given.items() if key not in told}
    if facts.spec.command is not None:
        known = {key: value for key, value in told.items() if key not in _KNOWN_TO_OUR_TRAINER}
        told = {**known, "snapshot": snapshot(view)}
    if facts.verdict is not None and state is RunState.FAILED:
        told |= {"error": facts.verdict.reason, "traceback": facts.verdict.traceback}
    if facts.verdict is not None and state is RunState.STOPPED:
        told |= {"reason": facts.verdict.reason}
    return told


def checkpoint(view: View, *, committed_at: bool = False) -> dict[str, Any] | None:
    """The newest committed checkpoint."""
    if view.manifest is None:
        return None
    told: dict[str, Any] = {"uri": view.checkpoint_uri, "step": view.manifest.get("step")}
    return told | ({"committed_at": view.manifest.get("created_at")} if committed_at else {})


def exact(view: View) -> bool | None:
    """Whether the result is the one an uninterrupted run would have; None: only the script can know."""
    given = (view.facts.verdict.result or {}) if view.facts.verdict else {}
    fallback = (view.manifest or {}).get("exact", True)
    training = view.facts.spec.training
    return bool(training.exact and given.get("exact", fallback)) if training is not None else None


def snapshot(view: View) -> dict[str, Any] | None:
    """The newest snapshot of a script's folder."""
    newest = view.snapshot
    if newest is None:
        return None
    return {
        "number": newest.number,
        "at": newest.at,
        "age": round(max(0.0, view.now - newest.at), 1),
        "why": newest.why,
        "files": len(newest.files),
        "bytes": newest.bytes,
        "uri": view.snapshot_uri,
    }


def _of_script(view: View) -> dict[str, Any]:
    """What takes the place of steps, which only the script knows, in a status."""
    counted = ("step", "total_steps", "epoch", "loss", "step_seconds", "data_wait_share", "steps_redone")
    unknown = (*counted, "exact", "checkpoint")
    return {**dict.fromkeys(unknown), "snapshot": snapshot(view)}


def _newest_progress(facts: Facts, now: float, *, fresh_only: bool) -> Progress | None:
    known = [
        (node.intent.incarnation, progress.round, progress.step, progress)
        for node in facts.nodes
        if node.status is not None and (progress := node.status.progress) is not None
        if not fresh_only or node.trains(now)
    ]
    return max(known, key=lambda entry: entry[:3])[3] if known else None


def _step(view: View, last: Progress | None) -> int:
    verdict = view.facts.verdict
    if verdict is not None and verdict.step is not None:
        return verdict.step
    # A checkpoint may be news of a later step than the last heartbeat.
    return max(last.step if last is not None else 0, int((view.manifest or {}).get("step", 0)))


def _reason(view: View) -> str | None:
    facts = view.facts
    if facts.verdict is not None:
        return facts.verdict.reason
    if facts.run.stop is not None:
        return facts.run.stop.reason
    on_its_way = any(node.counts and not node.never_seen for node in facts.current)
    return waits_for(facts.needs, steps=True) or (None if on_its_way else _controllers_word(view))


def _controllers_word(view: View) -> str | None:
    """What it last said about this incarnation: why there is no node, such as what has to be put right first."""
    run = view.facts.run
    began = run.resumed_at if run.resumed_at is not None else run.created_at
    said = [event for event in view.events if event.kind is EventKind.DECISION and event.at >= began]
    return said[-1].reason if said else None


def _need(need: NeedFacts) -> dict[str, Any]:
    state = need.state.value if need.state is not None else "gone"
    return {"run": need.run, "state": state, "step": need.step, "total_steps": need.total_steps}


def _node(node: NodeFacts, now: float) -> dict[str, Any]:
    machine, status, offer, notice = node.machine, node.status, node.offer, node.notice
    return {
        "id": node.node,
        "state": _node_state(node, now),
        "pids": list(machine.pids) if machine else [],
        "address": (status.address if status else None) or (machine.address if machine else None),
        "instance_id": (machine.instance_id if machine else None) or (status.instance_id if status else None),
        "instance_type": offer.instance_type,
        "zone": offer.zone,
        "market": offer.market.value,
        "launched_at": node.billed_from,
        "rank": status.progress.rank if status and status.progress else None,
        "notice": notice.model_dump(mode="json") if notice is not None else None,
        "authorised_until": node.intent.authorised_until,
    }


def _node_state(node: NodeFacts, now: float) -> str:
    if node.machine is not None and not node.machine.alive:
        return NodeState.ENDED.value
    if node.status is None:
        return "wanted" if node.never_seen else NodeState.BOOTING.value
    if node.status.state is NodeState.TRAINING and now - node.status.at >= FRESH_SECONDS:
        return "silent"
    return node.status.state.value


def _money(facts: Facts, now: float) -> dict[str, Any]:
    bills = ledger(facts.nodes, now)
    run = total(bills)
    return {
        "cost": round(run.cost, 6),
        "on_demand_cost": _cents(run.on_demand_cost),
        "saving": _cents(run.saving),
        "ledger": [_bill(bill) for bill in bills],
    }


def _cents(dollars: float | None) -> float | None:
    return round(dollars, 6) if dollars is not None else None


def _bill(bill: Bill) -> dict[str, Any]:
    return {
        "id": bill.node,
        "offer": bill.offer.model_dump(mode="json"),
        "from": bill.start,
        "to": bill.end,
        "seconds": round(bill.seconds, 3),
        "cost": round(bill.cost, 6),
        "on_demand_cost": _cents(bill.on_demand_cost),
        "saving": _cents(bill.saving),
    }


def _recovery(recovery: Recovery) -> dict[str, Any]:
    cause = recovery.cause
    seconds = round(recovery.seconds, 3) if recovery.seconds is not None else None
    return {"kind": cause.kind, "node": cause.node, "seconds": seconds, "at": cause.at}


def _metrics(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Of the last evaluation before the checkpoint."""
    history = (manifest.get("meta") or {}).get("history") or []
    return dict(history[-1].get("val") or {}) if history else {}
