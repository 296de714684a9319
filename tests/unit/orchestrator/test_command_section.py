"""A spec with a script: what it may say, and what it is told if it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.infra.errors import UsageError
from starling.orchestrator.loading import load_spec
from starling.orchestrator.plan import make_plan
from starling.orchestrator.spec import Spec

SCRIPT = {"run": "train.py --out out", "folder": "out"}


def load(folder: Path, *overrides: str, **spec: Any) -> Spec:
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "train.py").touch()
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "code": "code", "command": SCRIPT, **spec}, sort_keys=False))
    return load_spec(path, list(overrides))


def problem(folder: Path, **spec: Any) -> str:
    with pytest.raises(UsageError) as refused:
        load(folder, **spec)
    return str(refused.value)


def test_a_line_is_split_into_words_and_the_rest_has_defaults(tmp_path: Path) -> None:
    spec = load(tmp_path, command={"run": "train.py --name 'two words'", "folder": "out", "every": "5m"})
    assert spec.command is not None
    assert spec.command.run == ["train.py", "--name", "two words"]
    assert (spec.command.every, spec.command.grace, spec.command.keep, spec.command.settle) == (300, 30, 3, 2)
    assert Spec.model_validate(spec.resolved()).resolved() == spec.resolved()


@pytest.mark.parametrize("run", [["train.py"], "-m json.tool", "bash train.sh"])
def test_scripts_modules_and_executables_are_taken(tmp_path: Path, run: Any) -> None:
    assert load(tmp_path, command={**SCRIPT, "run": run}).command


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"run": "gone.py"}, "spec.yaml:4: command.run: there is no gone.py in"),
        ({"run": ""}, "command.run"),
        ({"run": "-m"}, "-m needs the name of a module"),
        ({"run": "torchrun --nproc-per-node=2 train.py"}, "drop torchrun"),
        ({"run": "python train.py --out out"}, "drop python: train.py --out out is run"),
        ({"run": "--epochs 3"}, "'--epochs' is no command"),
        ({"run": "train.py 'out"}, "cannot be split into words"),
        ({"folder": "/data/out"}, "spec.yaml:5: command.folder: '/data/out' leads out of the code folder"),
        ({"folder": "../out"}, "leads out of the code folder"),
        ({"folder": "."}, "the code folder itself cannot be it"),
        ({"every": 0.5}, "command.every: 0.5 s is too often"),
        ({"keep": 0}, "command.keep"),
        ({"evry": 5}, "did you mean every?"),
        ({"logs": [""]}, "command.logs: holds an empty pattern"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, command: dict[str, Any], message: str) -> None:
    assert message in problem(tmp_path, command={**SCRIPT, **command})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "classification"),
        ("model", "small-cnn"),
        ("data", {"dataset": "digits"}),
        ("training", {"epochs": 1, "global_batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}}),
        ("checkpoint", {"keep": 7}),
    ],
)
def test_what_a_script_does_by_itself_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    told = problem(tmp_path, **{key: value})
    assert f"{key}: has no effect with command" in told
    assert "spec.yaml:" in told


def test_a_script_needs_its_folder(tmp_path: Path) -> None:
    assert "code: name the folder that train.py --out is in" in problem(tmp_path, code=None)


def test_without_command_task_and_training_are_required(tmp_path: Path) -> None:
    told = problem(tmp_path, command=None)
    assert "task: is required" in told
    assert "training: is required" in told


def test_a_plan_names_the_script_and_its_snapshots_but_no_steps(tmp_path: Path) -> None:
    plan = make_plan(load(tmp_path, nodes={"max": 2}), None, [])
    assert plan.command == "train.py --out out"
    assert "out/ every 600 s" in plan.checkpoints
    assert plan.total_steps is None
    assert plan.useful == ()
