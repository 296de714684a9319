"""The rules of the house (docs/architecture.md), held by reading the source."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "starling"
PRODUCT = [
    path
    for folder in ("starling", "demo", "examples", "benchmarks", "chaos")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
SOURCES = [path for path in PRODUCT if path.is_relative_to(PACKAGE)]

MAY_IMPORT = {
    "infra": {"infra"},
    "orchestrator": {"infra", "orchestrator"},
    "trainer": {"infra", "trainer"},
    "cli": {"infra", "orchestrator", "cli"},
}
FOR_THE_COMMAND_LINE = ("starling.trainer.data.", "starling.trainer.judging.")
"""The parts of the trainer that the command line uses, and only inside the functions that need them."""

UNPICKLING_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
UNPICKLING_CALLS = {
    *("torch.load", "torch.jit.load", "torch.package.PackageImporter", "pandas.read_pickle"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader"),
}
VENDOR_FILES = "starling/trainer/models/vendor_files.py"
"""Reads weights that came with a package or from torchvision, never from a store: `torch.load`, of tensors alone."""
OBJECT_COLLECTIVES = {
    *("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list"),
    *("send_object_list", "recv_object_list"),
}
CLOCK_CALLS = {"time.sleep", "time.time", "time.monotonic", "datetime.now", "datetime.utcnow"}
MAY_WAIT = {
    "controller.py": "the one loop that sleeps",
    "controller_lock.py": "tries again for a tenth of a second when somebody only looked at the lock",
}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module as (dotted name, line); `from a import b` gives `a.b` too, as `b` may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute or name; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def in_fresh_python(code: str) -> list[str]:
    """Run code in a new interpreter; it prints one JSON list as its last line."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    found: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_packages_import_in_one_direction_only() -> None:
    broken = []
    for path in SOURCES:
        here = path.relative_to(PACKAGE).parts[0]
        for name, line in imports(tree_of(path)):
            assert not name.startswith("."), f"{short(path)}:{line}: name modules in full, from the top"
            parts = name.split(".")
            if parts[0] != "starling" or len(parts) < 2 or here not in MAY_IMPORT:
                continue
            offered = here == "cli" and f"{name}.".startswith(FOR_THE_COMMAND_LINE)
            if parts[1] not in MAY_IMPORT[here] and not offered:
                broken.append(f"{short(path)}:{line}: {here} must not import {name}")
    assert not broken, "\n".join(broken)


def test_every_package_has_its_rule() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


def test_torch_is_imported_by_the_trainer_only() -> None:
    others = [path for path in SOURCES if "trainer" not in path.relative_to(PACKAGE).parts]
    broken = [
        f"{short(path)}:{line}"
        for path in others
        for name, line in imports(tree_of(path))
        if name.split(".")[0] in ("torch", "torchvision", "safetensors")
    ]
    assert not broken, broken


def test_orchestrator_and_cli_leave_torch_alone() -> None:
    """Not even transitively: every module of both (and of infra) imported in a fresh interpreter."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] in ("cli", "infra", "orchestrator") and path.name != "__main__.py"
    ]
    assert len(modules) > 40, "the list of modules is not what it should be"
    code = f"""
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name.removesuffix(".__init__"))
print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] in ("torch", "torchvision", "sklearn"))))
"""
    assert in_fresh_python(code) == []


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    # typer itself imports pydantic as soon as a verb has parameters.
    [([], []), (["--help"], []), (["run", "--help"], ["pydantic"]), (["data", "--help"], ["pydantic"])],
)
def test_help_imports_nothing_heavy(arguments: list[str], allowed: list[str]) -> None:
    """What makes `starling --help` answer at once."""
    code = f"""
import json, sys
from starling.cli import main
arguments = {arguments!r}
if arguments:
    sys.argv = ["starling", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, end.code
heavy = ("torch", "boto3", "botocore", "pydantic", "rich", "yaml", "numpy")
print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}} & set(heavy))))
"""
    assert [name for name in in_fresh_python(code) if name not in allowed] == []


def test_nothing_is_ever_unpickled() -> None:
    """What lies in a store is data. multiprocessing's own pipes between our processes are not reached by it."""
    broken = []
    for path in SOURCES:
        tree = tree_of(path)
        broken += [
            f"{short(path)}:{line}: {name}"
            for name, line in imports(tree)
            if name.split(".")[0] in UNPICKLING_MODULES or name in UNPICKLING_CALLS
        ]
        for node in ast.walk(tree):
            name = dotted(node)
            if name == "torch.load" and short(path) == VENDOR_FILES:
                continue
            if name in UNPICKLING_CALLS or name.rpartition(".")[2] in OBJECT_COLLECTIVES:
                broken.append(f"{short(path)}:{node.lineno}: {name}")  # type: ignore[attr-defined]
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                broken.append(f"{short(path)}:{node.lineno}: allow_pickle")
    assert not broken, "\n".join(broken)


def test_vendors_files_are_read_as_tensors_alone() -> None:
    tree = tree_of(ROOT / VENDOR_FILES)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"]
    assert len(calls) == 1
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in calls[0].keywords}
    assert given["weights_only"] == "True"
    stores = [name for name, _ in imports(tree) if "store" in name and "store.locks" not in name]
    assert stores == []


def test_yaml_is_loaded_safely() -> None:
    calls = [
        (path, node)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and dotted(node.func) == "yaml.load"
    ]
    for path, call in calls:
        given = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "Loader"]
        assert given in (["_Loader"], ["yaml.SafeLoader"]), f"{short(path)}:{call.lineno}: {ast.unparse(call)}"
        assert "class _Loader(yaml.SafeLoader)" in path.read_text() or given == ["yaml.SafeLoader"], short(path)


def test_files_are_short() -> None:
    long = {short(path): lines for path in PRODUCT if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES}
    assert not long, f"over {MAX_FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    long = {
        f"{short(path)}:{node.lineno} {node.name}": lines
        for path in PRODUCT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long, f"over {MAX_FUNCTION_LINES} lines: {long}"


def test_decisions_take_the_time_as_an_argument() -> None:
    broken = [
        f"{short(path)}:{node.lineno}: {dotted(node.func)}"
        for path in SOURCES
        if "orchestrator" in path.parts and path.name not in MAY_WAIT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and dotted(node.func) in CLOCK_CALLS
    ]
    assert not broken, broken


def test_modules_are_named_for_what_they_do() -> None:
    empty = [short(path) for path in PRODUCT if path.stem in EMPTY_NAMES or path.parent.name in EMPTY_NAMES]
    assert not empty, empty


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
