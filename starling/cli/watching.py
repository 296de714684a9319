"""Watches a run until it is over. Watching has no part in the run: it may end, and begin again, at any time."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

from starling.cli.opening import OpenRun
from starling.cli.output import emit, note
from starling.cli.result_text import result_text
from starling.infra.errors import StarlingError, StoreUnavailable
from starling.orchestrator.launching import controller_log, controller_pid
from starling.orchestrator.report import View, result, run_state, status

LOOK_SECONDS = 1.0
CONTROLLER_START_SECONDS = 15.0
"""A controller that has not shown up after this long has failed to start."""
WIND_UP_SECONDS = 120.0
"""How long we wait, once the run is over, for its nodes and its controller to be gone."""
INTERRUPTED = 130


class Display(AbstractContextManager["Display"], Protocol):
    def show(self, view: View, told: dict[str, Any]) -> None:
        """Show this look at the run; `told` is its status."""
        ...


def watch(run: OpenRun, *, as_json: bool) -> int:
    """Show a run until it is over and print its result; returns its exit code. Ctrl-C ends only the watching."""
    try:
        with _display(as_json) as display:
            view = wait_until_over(run, display)
    except KeyboardInterrupt:
        name, where = run.run, f"--store {run.store.uri}"
        note(
            f"\nno longer watching; run {name} goes on.\n"
            f"  starling stop {name} {where}      stops it (resume lets it go on)\n"
            f"  starling status {name} {where}    shows where it is\n"
            f"  starling resume {name} {where}    watches it again"
        )
        return INTERRUPTED
    told = result(view)
    if as_json:
        emit(told)
    else:
        print(result_text(told), flush=True)
    return run_state(view.facts, view.now).exit_code


def wait_until_over(run: OpenRun, display: Display | None = None, *, incarnation: int | None = None) -> View:
    """Look again and again until the run is over and its nodes and controller are gone.

    With `incarnation`, also return as soon as the run has gone on to a later one: that one is over.

    Raises StarlingError if it cannot come to an end because nobody controls it and no node works for it.
    """
    began = time.time()
    over_since: float | None = None
    warned = False
    while True:
        view = _look(run)
        if display is not None:
            display.show(view, status(view))
        if incarnation is not None and view.facts.run.incarnation > incarnation:
            return view
        now = time.time()
        controlled = controller_pid(run.run, run.store.uri) is not None
        if run_state(view.facts, now).final:
            over_since = over_since or now
            cleared = not view.facts.present and not controlled
            if cleared or now > over_since + WIND_UP_SECONDS or (not controlled and not _machines_up(view)):
                return view
        elif not controlled and now > began + CONTROLLER_START_SECONDS:
            if not _machines_up(view):
                raise StarlingError(_uncontrolled(run))
            if not warned:
                note(_uncontrolled(run))
            warned = True
        time.sleep(LOOK_SECONDS)


def _machines_up(view: View) -> bool:
    return any(node.up for node in view.facts.nodes)


def _look(run: OpenRun) -> View:
    while True:
        try:
            return run.view()
        except StoreUnavailable as error:
            note(f"the store does not answer; the run may well go on: {error}")
            time.sleep(5 * LOOK_SECONDS)


def _uncontrolled(run: OpenRun) -> str:
    log = controller_log(run.run)
    last = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    said = "; its last words:\n  " + "\n  ".join(last) if last else ""
    return (
        f"no controller of run {run.run} works on this machine, so lost nodes are not replaced{said}\n"
        f"starling resume {run.run} --store {run.store.uri} starts one"
    )


def _display(as_json: bool) -> Display:
    from starling.cli.live import LiveDisplay, PlainDisplay

    if sys.stdout.isatty() and not as_json:
        return LiveDisplay()
    # With --json, stdout is kept for the one document.
    return PlainDisplay(sys.stderr if as_json else sys.stdout)
