"""A task that is not there is found before a machine is bought."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.orchestrator.code_check import task_problem
from starling.orchestrator.loading import load_spec

SPEC = """\
name: mine
task: {task}
code: code
training: {{epochs: 1, global_batch: 8, optimizer: {{name: sgd, lr: 0.1}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    (code / "package").mkdir(parents=True)
    (code / "task.py").write_text(
        "class Right: ...\nclass Other: ...\nif True:\n    from x import Imported\nMade = 1\n"
    )
    (code / "package" / "__init__.py").write_text("from elsewhere import *\n")
    (code / "broken.py").write_text("x = 1\ndef f(:\n")
    return code


@pytest.mark.parametrize("name", ["task:Right", "task:Imported", "task:Made", "package:Anything", "numpy:Anything"])
def test_what_may_be_there_is_let_pass(folder: Path, name: str) -> None:
    assert task_problem(name, folder) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("task:Wrong", "task.py has no class 'Wrong'; it has Right, Other"),
        ("tusk:Right", "holds no tusk.py; its modules are broken, task"),
        ("package.inner:Right", "holds no package/inner.py"),
        ("broken:Right", "broken.py:2: this is no valid Python"),
    ],
)
def test_what_cannot_be_there_is_named(folder: Path, name: str, said: str) -> None:
    assert said in (task_problem(name, folder) or "")


def test_a_module_may_come_from_requirements(folder: Path) -> None:
    (folder / "requirements.txt").write_text("somebodys-tasks\n")
    assert task_problem("somebodys_tasks:Task", folder) is None


def test_the_spec_is_refused_with_file_and_line(folder: Path) -> None:
    spec = folder.parent / "spec.yaml"
    spec.write_text(SPEC.format(task='"task:Wrong"'))
    with pytest.raises(UsageError, match=r"spec\.yaml:2: task: .*has no class 'Wrong'"):
        load_spec(spec, [])
