"""The command line on a real store; no node is ever launched here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.infra import layout
from starling.infra.home import starling_home
from starling.infra.records import RunState, Verdict
from starling.infra.store import Store, open_store
from starling.orchestrator.launching import controller_pid
from starling.orchestrator.runs import create_run
from tests.support.command_line import Starling, command_line
from tests.support.specs import plain_spec, spec


@pytest.fixture
def starling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Starling:
    """Runs the command line in this process, with a home of its own."""
    monkeypatch.setenv("STARLING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STARLING_STORE", raising=False)

    return command_line(monkeypatch, capfd)


@pytest.fixture
def store(starling: Starling) -> Store:
    """The default store."""
    return open_store(str(starling_home() / "store"))


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(plain_spec()))
    return path


def dataset(store: Store, samples: int = 1000) -> None:
    index = {"splits": {"train": {"samples": [0] * samples}}}
    store.put(layout.dataset("digits") + "index.json", json.dumps(index).encode())


def finished(store: Store, run: str, state: RunState, **more: Any) -> None:
    create_run(store, spec(), name=run)
    verdict = Verdict(state=state, at=time.time(), by="test", reason="because", **more)
    store.create(layout.verdict(run, 0), verdict.to_bytes())


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, starling.cli.app; print([m for m in ('pydantic', 'rich', 'yaml', 'torch') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_plan_for_people_and_machines(starling: Starling, store: Store, spec_file: Path) -> None:
    dataset(store)
    document = starling("plan", str(spec_file), "--json", "-o", "training.epochs=3").document
    assert (document["total_steps"], [world["nodes"] for world in document["useful"]]) == (48, [1, 2, 3, 4, 8])
    told = starling("plan", str(spec_file))
    assert told.code == 0
    assert "32 steps (2 epochs x 16)" in told.out


def test_plan_writes_nothing(starling: Starling, store: Store, spec_file: Path) -> None:
    starling("plan", str(spec_file))
    assert not starling_home().exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "training.epoch=3"], "training.epoch: unknown key; did you mean epochs?"),
        ([], "starling data prepare digits digits"),
        (["--provider", "azure"], "provider.name: unknown value 'azure'"),
        (["--store", "ftp://x/y"], "ftp:// is not supported"),
        (["--provider", "aws", "--store", "somewhere"], "nodes on AWS cannot reach the folder"),
        (["-o", "provider.name=aws", "-o", "store=somewhere"], "nodes on AWS cannot reach the folder"),
    ],
)
def test_run_refuses_before_it_writes(starling: Starling, spec_file: Path, arguments: list[str], said: str) -> None:
    told = starling("run", str(spec_file), *arguments, "--json")
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert "Traceback" not in told.err
    assert not starling_home().exists()


def test_an_unwritable_store_is_one_clear_message(starling: Starling, spec_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = starling("run", str(spec_file), "--store", str(tmp_path / "file" / "store"))
    assert told.code in (1, 2)
    assert str(tmp_path / "file") in told.err
    assert "Traceback" not in told.err


def test_missing_spec_file_and_unknown_verb(starling: Starling) -> None:
    assert starling("plan", "nowhere.yaml").code == 2
    assert starling("fly").code == 2


@pytest.mark.parametrize(
    "arguments", [["status"], ["result"], ["events"], ["logs"], ["stop"], ["resume"], ["interrupt"]], ids=lambda a: a[0]
)
def test_an_unknown_run_names_those_there_are(starling: Starling, store: Store, arguments: list[str]) -> None:
    create_run(store, spec(), name="mine")
    told = starling(*arguments, "yours")
    assert (told.code, told.out) == (2, "")
    assert "there is no run yours" in told.err
    assert "mine" in told.err


def test_list_and_status(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="one")
    finished(store, "two", RunState.STOPPED)
    runs = starling("list", "--json").document["runs"]
    assert [(run["run"], run["state"]) for run in runs] == [("one", "pending"), ("two", "stopped")]
    assert starling("status", "one", "--json").document == runs[0]
    assert "two" in starling("list").out
    assert "one pending" in starling("status", "one").out


def test_an_unreadable_run_does_not_hide_the_others(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="good")
    store.put(layout.run_record("bad"), b"{}")
    runs = starling("list", "--json").document["runs"]
    assert [(run["run"], run["state"]) for run in runs] == [("bad", "unreadable"), ("good", "pending")]
    assert starling("list").code == 0


def test_an_empty_store_has_no_runs(starling: Starling) -> None:
    assert starling("list", "--json").document == {"runs": []}


@pytest.mark.parametrize(("state", "code"), [(RunState.DONE, 0), (RunState.FAILED, 1), (RunState.STOPPED, 3)])
def test_result_exits_like_the_run(starling: Starling, store: Store, state: RunState, code: int) -> None:
    finished(store, "mine", state, traceback="Traceback of the trainer" if state is RunState.FAILED else None)
    told = starling("result", "mine", "--json")
    assert (told.code, told.document["state"]) == (code, state.value)
    text = starling("result", "mine")
    assert text.code == code
    assert ("Traceback of the trainer" in text.out) is (state is RunState.FAILED)


def test_resume_of_a_done_run_shows_its_result(starling: Starling, store: Store) -> None:
    finished(store, "mine", RunState.DONE, result={"weights_sha256": "abc"})
    told = starling("resume", "mine", "--json")
    assert (told.code, told.document["weights_sha256"]) == (0, "abc")


def test_events_in_order(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="mine")
    events = starling("events", "mine", "--json").document["events"]
    assert [(event["kind"], event["subject"]) for event in events] == [("run-created", "mine")]
    assert "run-created" in starling("events", "mine").out


def test_logs_by_node(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="mine")
    for node, chunk, text in (("mine.0.0", 0, "first\n"), ("mine.1.0", 0, "other\n"), ("mine.0.0", 1, "second\n")):
        store.put(f"{layout.logs('mine', node)}{chunk:08d}.log", text.encode())
        store.put(layout.intent(node), b"{}")
    assert starling("logs", "mine", "--node", "mine.0.0").out == "==> mine.0.0 <==\nfirst\nsecond\n"
    assert [entry["node"] for entry in starling("logs", "mine", "--json").document["logs"]].count("mine.1.0") == 1
    refused = starling("logs", "mine", "--node", "mine.9.9")
    assert refused.code == 2
    assert "mine.0.0, mine.1.0" in refused.err
    assert starling("logs", "mine", "-f", "--json").code == 2


def test_stop_is_carried_out_by_a_controller_of_its_own(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="mine")
    told = starling("stop", "mine", "--json")
    assert (told.code, told.document["state"]) == (0, "stopped")
    assert "starling stop" in told.document["reason"]
    assert controller_pid("mine", store.uri) is None
    assert starling("result", "mine").code == 3


def test_interrupt_wants_a_running_node_and_writes_nothing_without(starling: Starling, store: Store) -> None:
    create_run(store, spec(), name="mine")
    for arguments in ([], ["--node", "rank0"], ["--node", "mine.0.0", "--hard"]):
        told = starling("interrupt", "mine", *arguments)
        assert told.code == 2
        assert "running nodes: none" in told.err
    assert starling("interrupt", "mine", "--hard", "--notice", "3").code == 2
    assert [event["kind"] for event in starling("events", "mine", "--json").document["events"]] == ["run-created"]


def test_schema_is_json_schema(starling: Starling) -> None:
    document = starling("schema").document
    assert document["additionalProperties"] is False
    assert document["required"] == ["name"]
    assert document["oneOf"] == [{"required": ["task", "training"]}, {"required": ["command"]}]


@pytest.mark.parametrize(
    "arguments",
    [[], ["one"], ["one", "two", "--from", "digits"], ["--from", "folder"]],
    ids=lambda a: " ".join(a) or "-",
)
def test_data_prepare_says_how_it_is_used(starling: Starling, arguments: list[str]) -> None:
    told = starling("data", "prepare", *arguments)
    assert told.code == 2
    assert "starling: " in told.err


def test_digits_are_prepared_once(starling: Starling, store: Store) -> None:
    first = starling("data", "prepare", "--from", "digits", "--json").document
    assert first["splits"]["train"] > 1000
    assert starling("data", "prepare", "digits", "--from", "digits", "--json").document["already_prepared"] is True
