from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.infra.store import open_store
from starling.trainer.data.prepare import prepare
from starling.trainer.task import TaskContext
from starling.trainer.tasks.classification import ClassificationTask
from starling.trainer.tasks.loading import load_task

GOOD = """
from starling.trainer.task import Task

class Mine(Task):
    def build_model(self): ...
    def train_samples(self): ...
    def val_samples(self): ...
    def score(self, model, batch): ...

class Unfinished(Task):
    def build_model(self): ...

class Picky(Mine):
    def __init__(self, context):
        super().__init__(context)
        raise KeyError("no such column")

class Stranger: ...

function = print
"""


@pytest.fixture
def context(tmp_path: Path) -> TaskContext:
    (tmp_path / "store").mkdir()
    store = open_store(str(tmp_path / "store"))
    return TaskContext(
        options={},
        model_name="small-cnn",
        model_options={},
        dataset="digits",
        store=store,
        cache_dir=tmp_path / "cache",
        seed=0,
    )


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes modules into a folder on sys.path; forgets them afterwards."""
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.syspath_prepend(code)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = code / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("users_"):
            del sys.modules[name]


def test_classification_is_built_in(context: TaskContext) -> None:
    prepare("digits", context.store, "digits")
    assert isinstance(load_task("classification", context), ClassificationTask)


def test_a_users_class_is_imported_and_given_its_context(
    context: TaskContext, write_module: Callable[[str, str], None]
) -> None:
    write_module("users_task.py", GOOD)
    task = load_task("users_task:Mine", context)
    assert type(task).__name__ == "Mine"
    assert task.context is context


LOAD_IN_A_FRESH_PROCESS = """
import sys
from starling.trainer.tasks.loading import load_task

assert "torchvision" not in sys.modules
load_task("users_vision:Mine", None)
assert sys.modules["users_vision"].models.resnet18
"""


def test_a_users_module_may_import_torchvision(tmp_path: Path) -> None:
    (tmp_path / "users_vision.py").write_text("from torchvision import models, transforms" + GOOD)
    subprocess.run([sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS], check=True, cwd=tmp_path, timeout=120)


def test_a_module_may_lie_in_a_package(context: TaskContext, write_module: Callable[[str, str], None]) -> None:
    write_module("users_package/__init__.py", "")
    write_module("users_package/tasks.py", GOOD)
    assert type(load_task("users_package.tasks:Mine", context)).__module__ == "users_package.tasks"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("clasification", "no task 'clasification'; there are classification, grading, .*or module:Class"),
        ("users_task:", "no task 'users_task:'"),
        (":Mine", "no task ':Mine'"),
        ("users_nothing:Mine", "no module 'users_nothing' in the code folder"),
        ("users_task.inner:Mine", "no module 'users_task.inner' in the code folder"),
        ("users_task:Mime", r"users_task.py has no class 'Mime'; its tasks are Mine, Unfinished, Picky"),
        ("users_task:Stranger", "users_task:Stranger is not a subclass of starling.trainer.task.Task"),
        ("users_task:function", "is not a subclass"),
        ("users_task:Task", "is not a subclass"),
        ("users_task:Unfinished", "users_task:Unfinished must define score, train_samples, val_samples"),
        ("users_empty:Mine", "users_empty.py has no class 'Mine'; it defines no subclass of starling"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    context: TaskContext, write_module: Callable[[str, str], None], name: str, complaint: str
) -> None:
    write_module("users_task.py", GOOD)
    write_module("users_empty.py", "")
    with pytest.raises(UsageError, match=complaint):
        load_task(name, context)


@pytest.mark.parametrize(
    ("text", "error", "line"),
    [
        ("import users_nowhere", ModuleNotFoundError, "import users_nowhere"),
        ("\n\n1 / 0", ZeroDivisionError, "1 / 0"),
        ("def f(:", SyntaxError, None),
    ],
)
def test_errors_of_the_users_module_pass_through(
    context: TaskContext,
    write_module: Callable[[str, str], None],
    text: str,
    error: type[Exception],
    line: str | None,
) -> None:
    write_module("users_broken.py", text)
    with pytest.raises(error) as caught:
        load_task("users_broken:Mine", context)
    assert line is None or str(caught.traceback[-1].statement) == line


def test_errors_of_the_users_constructor_pass_through(
    context: TaskContext, write_module: Callable[[str, str], None]
) -> None:
    write_module("users_task.py", GOOD)
    with pytest.raises(KeyError, match="no such column"):
        load_task("users_task:Picky", context)
