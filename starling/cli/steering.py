"""`stop` and `interrupt`."""

from __future__ import annotations

import time

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, note, say
from starling.cli.result_text import result_text
from starling.cli.watching import wait_until_over
from starling.infra.errors import UsageError
from starling.infra.journal import Journal
from starling.infra.records import EventKind
from starling.orchestrator.facts import NodeFacts
from starling.orchestrator.launching import controller_pid, start_controller
from starling.orchestrator.report import View, result, run_state, status
from starling.orchestrator.runs import request_stop
from starling.orchestrator.stages import runs_to_control

DEFAULT_NOTICE_SECONDS = 120.0
"""What AWS gives."""


def stop_verb(run: str, store_uri: str | None, *, wait: bool, as_json: bool) -> None:
    """Ask, see to it that somebody carries it out, wait."""
    store = store_for(store_uri)
    opened = OpenRun(store, run)
    incarnation = request_stop(store, run, "asked for by `starling stop`").incarnation
    view = opened.view()
    if not run_state(view.facts, view.now).final or view.facts.present:
        if controller_pid(run, store.uri) is None:
            start_controller(run, store.uri)
        if wait:
            note(f"run {run} is stopping: waiting for its last checkpoint")
            view = wait_until_over(opened, incarnation=incarnation)
            if view.facts.run.incarnation > incarnation:
                note(f"run {run} had stopped, and was resumed in the meantime")
    go_on = [each for each in runs_to_control(store, run) if each != run]
    if go_on:
        note(f"the runs that {run} needs go on: {', '.join(go_on)} (`starling stop` stops each of them)")
    if as_json:
        emit(result(view) if wait else status(view))
    else:
        say(result_text(result(view)) if wait else f"run {run} was asked to stop")


def interrupt_verb(
    run: str, store_uri: str | None, *, node: str | None, notice: float | None, hard: bool, as_json: bool
) -> None:
    """The event bears the time before the call, so that recovery is measured from the cause."""
    if hard and notice is not None:
        raise UsageError("--hard gives no notice: give --hard or --notice SECONDS")
    opened = OpenRun(store_for(store_uri), run)
    victim = choose(opened.view(), node)
    seconds = None if hard else (DEFAULT_NOTICE_SECONDS if notice is None else notice)
    kind = "hard" if hard else "notice"
    what = "taken at once" if hard else f"to be taken in {seconds:g} s"
    at = time.time()
    opened.provider().interrupt(victim.node, seconds)
    event = Journal(opened.store, run).write(
        EventKind.INTERRUPT, victim.node, f"rehearsed interruption: {what}", at=at, kind=kind, seconds=seconds or 0.0
    )
    if as_json:
        emit({"run": run, "node": victim.node, "kind": kind, "seconds": seconds, "at": event.at})
    else:
        say(f"{victim.node}: {what}")


def choose(view: View, wanted: str | None) -> NodeFacts:
    """The node to interrupt: by id, the one with rank 0, or any that trains. Raises UsageError."""
    run = view.facts.run.run
    up = [node for node in view.facts.nodes if node.up]
    training = [node for node in up if node.trains(view.now)]
    if wanted is None:
        found = [node for node in training if not node.announced] or training
        missing = f"no node of run {run} trains at present (`starling status {run}` says when)"
    elif wanted == "rank0":
        found = [node for node in training if node.status and node.status.progress and node.status.progress.rank == 0]
        found.sort(key=lambda node: -(node.status.progress.round if node.status and node.status.progress else 0))
        missing = f"no node of run {run} trains with rank 0 at present (`starling status {run}` says when)"
    else:
        found = [node for node in up if node.node == wanted]
        missing = f"run {run} has no running node {wanted}"
    if not found:
        raise UsageError(f"{missing}; running nodes: {', '.join(node.node for node in up) or 'none'}")
    return found[0]
