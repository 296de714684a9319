"""Waiting for a run's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.cli.opening import OpenRun
from starling.cli.watching import wait_until_over
from starling.infra import layout
from starling.infra.records import RunState, Verdict
from starling.infra.store import Store
from starling.orchestrator.runs import create_run, request_stop, resume_run
from tests.support.specs import spec


def test_a_stop_is_over_though_the_run_was_resumed_before_anybody_looked(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARLING_HOME", str(tmp_path / "home"))
    create_run(folder_store, spec(), name="mine")
    stopped = request_stop(folder_store, "mine", "pause").incarnation
    verdict = Verdict(state=RunState.STOPPED, at=1.0, by="test", reason="pause")
    folder_store.create(layout.verdict("mine", stopped), verdict.to_bytes())
    resume_run(folder_store, "mine", [])
    view = wait_until_over(OpenRun(folder_store, "mine"), incarnation=stopped)
    assert view.facts.run.incarnation == stopped + 1
