"""What plan, status, list and stop say about runs that need others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.cli import showing, starting
from starling.infra.errors import UsageError
from starling.infra.store import Store, open_store
from starling.orchestrator.runs import create_run
from tests.support.specs import plain_spec, spec


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("STARLING_HOME", str(tmp_path / "home"))
    opened = open_store(str(tmp_path / "store"))
    create_run(opened, spec(), name="low")
    create_run(opened, spec(needs={"lowres": "low"}), name="high")
    return opened


def write(folder: Path, name: str, **sections: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**plain_spec(name=name), "data": None, **OWN, **sections}, sort_keys=False))
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "mine.py").write_text("class Mine: ...\n")
    return path


OWN: dict[str, Any] = {"task": "mine:Mine", "code": "code", "model": None}


def test_status_and_list_say_what_is_waited_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    showing.status_verb("high", store.uri, as_json=False)
    told = capsys.readouterr().out
    assert "high pending, waits for run low (needs.lowres, pending)" in told
    assert "needs lowres: run low, pending\n" in told
    showing.list_verb(store.uri, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("high ")).split("  ")[1].strip() == "pending (waits for low)"
    assert "waits" not in next(line for line in lines if line.startswith("low "))


def test_the_plan_shows_every_stage_and_the_runs_that_are_named(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "first", needs={"before": "low"}, limits={"max_duration": 3600})
    top = write(tmp_path, "second", needs={"first": "first.yaml"}, limits={"max_duration": 7200})
    starting.plan_verb(top, [], None, store.uri, as_json=False)
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("  ")] == [
        f"stage 1 of 2: needs.first, {tmp_path / 'first.yaml'}",
        f"stage 2 of 2: the run itself, {top}",
        "all stages together: at most $0.00",
    ]
    assert "  needs.before: run low" in told
    starting.plan_verb(top, [], None, store.uri, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["name"], [needed["name"] for needed in plan["needs"]]) == ("second", ["first"])
    assert plan["needs"][0]["need"] == "first"


def test_a_stage_in_another_store_is_refused_unless_one_is_given_for_all(store: Store, tmp_path: Path) -> None:
    write(tmp_path, "first", store="elsewhere")
    top = write(tmp_path, "second", needs={"first": "first.yaml"})
    with pytest.raises(UsageError, match=r"first\.yaml: store: .*elsewhere is not .*; drop it"):
        starting.plan_verb(top, [], None, None, as_json=False)
    starting.plan_verb(top, [], None, store.uri, as_json=True)
