"""Whether a user's task can be there, found out before any machine is paid for. Nothing of theirs is run."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path


def task_problem(name: str, folder: Path) -> str | None:
    """What is wrong with the task `module:Class` of a code folder, if that can be seen by reading it."""
    module, _, class_name = name.partition(":")
    path = _module_file(module, folder)
    if path is None:
        return None if _may_be_installed(module, folder) else _no_module(module, folder)
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        return f"{path}:{error.lineno}: this is no valid Python: {error.msg}"
    names = set(_names(tree))
    if class_name in names or "*" in names or "__getattr__" in names:
        return None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return f"{path} has no class {class_name!r}; " + (f"it has {', '.join(classes)}" if classes else "it has no class")


def _module_file(module: str, folder: Path) -> Path | None:
    base = folder.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _may_be_installed(module: str, folder: Path) -> bool:
    """Whether nodes may find a module that the folder does not hold."""
    top = module.partition(".")[0]
    return (folder / "requirements.txt").exists() or importlib.util.find_spec(top) is not None


def _no_module(module: str, folder: Path) -> str:
    there = sorted(path.stem for path in folder.glob("*.py"))
    wanted = "/".join(module.split(".")) + ".py"
    return f"{folder} holds no {wanted}; " + (f"its modules are {', '.join(there)}" if there else "it holds no module")


def _names(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines or imports, at any depth of `if` and `try`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
