"""What the orchestrator writes into a node's job is what the trainer reads out of it, key by key."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from starling.orchestrator.loading import load_spec
from starling.trainer.config import CheckpointPolicy, Job, Optimizer, Schedule, Training
from starling.trainer.script.job import ScriptJob

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SPECS = [path for path in FILES if path.name != "rehearsal.yaml"]  # that is a region script
SCRIPTS = [path for path in SPECS if "\ncommand:" in path.read_text()]
CONFIGS = [path for path in SPECS if path not in SCRIPTS]


def resolved(config: Path) -> dict[str, Any]:
    return load_spec(config, []).resolved()


def write_job(spec: dict[str, Any], folder: Path) -> None:
    """As the node's agent writes it (starling/infra/agent/prepare.py)."""
    job = {
        "run": "r",
        "incarnation": 0,
        "node": "r.0.0",
        "address": "127.0.0.1",
        "store_uri": str(folder / "store"),
        "spec": spec,
        "code_dir": None,
        "code_sha256": None,
        "work_dir": str(folder),
    }
    (folder / "job.json").write_text(json.dumps(job))


def job_of(spec: dict[str, Any], folder: Path) -> Job:
    write_job(spec, folder)
    return Job.read(folder / "job.json")


@pytest.mark.parametrize("config", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_told_the_values_of_the_spec(config: Path, tmp_path: Path) -> None:
    spec = resolved(config)
    write_job(spec, tmp_path)
    job = ScriptJob.read(tmp_path / "job.json")
    command = spec["command"]
    assert [*job.words] == command["run"]
    assert job.folder == tmp_path / "script" / command["folder"]
    assert {name: as_json(getattr(job, name)) for name in ("every", "grace", "keep", "settle", "logs")} == {
        name: value for name, value in command.items() if name not in ("run", "folder")
    }
    assert (job.min_nodes, job.max_nodes) == (spec["nodes"]["min"], spec["nodes"]["max"])
    assert job.ranks_per_node == spec["nodes"]["ranks_per_node"]
    assert job.command[0] == sys.executable


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_there_are_configs() -> None:
    assert CONFIGS
    assert SCRIPTS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_sections_have_the_same_keys(config: Path) -> None:
    spec = resolved(config)
    training = spec["training"]
    for kind, section in (
        (Training, training),
        (Optimizer, training["optimizer"]),
        (Schedule, training["schedule"]),
        (CheckpointPolicy, spec["checkpoint"]),
    ):
        assert {field.name for field in fields(kind)} == set(section), kind.__name__


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_job_holds_the_values_of_the_spec(config: Path, tmp_path: Path) -> None:
    spec = resolved(config)
    job = job_of(spec, tmp_path)
    assert as_json(asdict(job.training)) == spec["training"]
    assert as_json(asdict(job.checkpoint)) == spec["checkpoint"]
    assert (job.task, job.task_options) == (spec["task"]["name"], spec["task"]["options"])
    assert (job.min_nodes, job.max_nodes) == (spec["nodes"]["min"], spec["nodes"]["max"])
    assert job.ranks_per_node == spec["nodes"]["ranks_per_node"]
    assert job.dataset == (spec["data"]["dataset"] if spec["data"] else None)
    assert job.model == (spec["model"]["name"] if spec["model"] else None)
