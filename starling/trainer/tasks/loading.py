"""The name of a task -> the task."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from starling.infra.errors import UsageError
from starling.trainer.models.torchvision_shim import declare_missing_operators
from starling.trainer.task import Task, TaskContext

BUILT_IN = {
    "classification": "starling.trainer.tasks.classification:ClassificationTask",
    "grading": "starling.trainer.tasks.grading:GradingTask",
    "lesions": "starling.trainer.tasks.lesions:LesionsTask",
    "fusion": "starling.trainer.tasks.fusion:FusionTask",
}
"""Name in a spec -> module and class; imported only when it is asked for."""


def load_task(name: str, context: TaskContext) -> Task:
    """Construct a built-in task, or a user's "module:Class" from sys.path (the spec's `code:` folder is on it).

    UsageError if there is no such module or class, or if it is no Task. Errors that the user's own code raises pass
    through as they are, with its traceback.
    """
    if name in BUILT_IN:
        built_in_module, _, built_in_class = BUILT_IN[name].partition(":")
        task: Task = getattr(importlib.import_module(built_in_module), built_in_class)(context)
        return task
    module_name, colon, class_name = name.partition(":")
    if not (module_name and colon and class_name):
        known = ", ".join(BUILT_IN)
        raise UsageError(f"task: there is no task {name!r}; there are {known}, or module:Class for your own")
    return _task_class(name, _import(module_name), class_name)(context)


def _import(module_name: str) -> ModuleType:
    declare_missing_operators()  # users import torchvision themselves
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, but something that it imports is not
        raise UsageError(
            f"task: there is no module {error.name!r} in the code folder or among the installed packages; "
            "the spec's code: must be the folder that holds it"
        ) from error


def _task_class(name: str, module: ModuleType, class_name: str) -> type[Task]:
    found: Any = getattr(module, class_name, None)
    if found is None:
        own = [each for each, value in vars(module).items() if _is_task(value) and value.__module__ == module.__name__]
        there = f"its tasks are {', '.join(own)}" if own else "it defines no subclass of starling.trainer.task.Task"
        raise UsageError(f"task: {module.__file__} has no class {class_name!r}; {there}")
    if not _is_task(found):
        raise UsageError(f"task: {name} is not a subclass of starling.trainer.task.Task, which every task must be")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"task: {name} must define {', '.join(missing)}")
    task: type[Task] = found
    return task


def _is_task(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Task) and value is not Task
