"""Reads a spec file with `-o key=value` overrides; every problem is reported at once, with file and line."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from starling.infra.errors import UsageError
from starling.orchestrator.code_check import task_problem
from starling.orchestrator.complaints import KeyPath, complaints
from starling.orchestrator.spec import Spec

_SHORT_FORMS = ("task", "model", "provider", "schedule")
"""Sections that may be written as just their name; an override may still reach into them."""


def load_spec(path: Path, overrides: list[str]) -> Spec:
    """Read and check a spec file. Raises UsageError that lists everything that is wrong."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise UsageError(f"{path}: cannot read the spec: {reason}") from error
    document = _parse(text, str(path))
    spec = _validate(document, overrides)
    _check_folders(spec, document, path)
    return spec


def override(resolved: dict[str, Any], overrides: list[str], origin: str) -> Spec:
    """A stored spec with some values changed; `origin` names it in messages. Raises UsageError."""
    return _validate(_Document(name=origin, data=resolved), overrides)


def override_paths(overrides: list[str]) -> list[str]:
    """The keys that overrides concern. Raises UsageError for a malformed one."""
    return [".".join(_split(text)[0]) for text in overrides]


def code_folder(spec: Spec, path: Path) -> Path | None:
    """Where the user's code lies, if the spec names a folder."""
    return (path.parent / spec.code).resolve() if spec.code else None


@dataclass(kw_only=True)
class _Document:
    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: list[tuple[KeyPath, int]] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key, or of the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 1e-3 is a number, timestamps stay text."""

    def close(self) -> None:
        self.dispose()


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _parse(text: str, name: str) -> _Document:
    document = _Document(name=name, data={})
    try:
        with closing(_Loader(text)) as loader:
            root = loader.get_single_node()
            data = _build(loader, root, (), document) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{name}{line}: this is not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: this is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{name}: a spec is a mapping of keys (name:, task:, training:, ...), not {data!r}")
    document.data = data
    return document


def _build(loader: _Loader, node: yaml.Node, path: KeyPath, document: _Document) -> Any:
    """Construct a node ourselves, to know each key's line and to see keys given twice."""
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, index), document) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    section: dict[str, Any] = {}
    written = {id(key) for key, _ in node.value}
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        line = key_node.start_mark.line + 1
        if key in section and id(key_node) in written and (*path, key) in document.lines:
            document.duplicates.append(((*path, key), line))
        elif id(key_node) in written:
            document.lines[(*path, key)] = line
        section[key] = _build(loader, value_node, (*path, key), document)
    return section


def _validate(document: _Document, overrides: list[str]) -> Spec:
    found = [
        f"{document.name}:{line}: {_dotted(path)}: given twice (first in line {document.lines[path]}); keep one"
        for path, line in document.duplicates
    ]
    origins: dict[KeyPath, str] = {}
    for text in overrides:
        try:
            origins[_apply(document.data, text)] = f"-o {text}"
        except UsageError as error:
            found.append(str(error))
    try:
        spec = Spec.model_validate(document.data)
    except ValidationError as error:
        for path, text in complaints(error, document.data, Spec):
            origin = next((text for key, text in origins.items() if _related(key, path)), None)
            found.append(f"{origin or document.where(path)}: {_dotted(path) or 'spec'}: {text}")
    if found:
        raise UsageError("\n".join(found))
    return spec


def _related(one: KeyPath, other: KeyPath) -> bool:
    shared = min(len(one), len(other))
    return shared > 0 and one[:shared] == other[:shared]


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def _split(text: str) -> tuple[list[str], str]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"-o {text}: write KEY=VALUE, for example -o training.epochs=3")
    return parts, value


def _apply(data: dict[str, Any], text: str) -> KeyPath:
    """Put an override into the data; pydantic refuses unknown keys later."""
    parts, value = _split(text)
    here = data
    for index, part in enumerate(parts[:-1]):
        inner = here.get(part)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and part in _SHORT_FORMS:
            inner = {"name": inner}
        if not isinstance(inner, dict):
            raise UsageError(f"-o {text}: {'.'.join(parts[: index + 1])} is {inner!r}, not a section with keys")
        here[part] = inner
        here = inner
    try:
        here[parts[-1]] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"-o {text}: the value is not valid YAML; quote it") from error
    return tuple(parts)


def _check_folders(spec: Spec, document: _Document, path: Path) -> None:
    folder = code_folder(spec, path)
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"{document.where(('code',))}: code: {folder} is no folder; name one relative to the spec file"
        )
    script = spec.command.script if spec.command is not None else None
    if folder is not None and script is not None and not (folder / script).is_file():
        raise UsageError(
            f"{document.where(('command', 'run'))}: command.run: there is no {script} in {folder}; "
            "write its path from there"
        )
    own = spec.task.name if spec.task is not None and not spec.task.built_in else None
    problem = task_problem(own, folder) if folder is not None and own is not None else None
    if problem is not None:
        raise UsageError(f"{document.where(('task',))}: task: {problem}")
