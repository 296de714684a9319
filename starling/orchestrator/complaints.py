"""Turns what pydantic found wrong into what a user can act on: key, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from starling.orchestrator.sections import Problems

KeyPath = tuple[str | int, ...]

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
    "list_type": "a list",
    "tuple_type": "a list",
}


def complaints(error: ValidationError, data: dict[str, Any], root: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    """Every problem as (path of the key as the user wrote it, one line of text)."""
    for entry in error.errors(include_url=False):
        path = _as_written(entry["loc"], data)
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            for key, text in cause.found:
                yield (*path, *key.split(".")), text
        else:
            yield path, _text(dict(entry), _model_at(entry["loc"][:-1], root))


def _as_written(loc: KeyPath, data: Any) -> KeyPath:
    """Drop what pydantic puts between keys: the members of a union that it tried."""
    path: list[str | int] = []
    here = data
    for index, part in enumerate(loc):
        known = (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int))
        if known:
            here = here[part]
        if known or (index == len(loc) - 1 and isinstance(here, dict)):
            path.append(part)
    return tuple(path)


def _text(entry: dict[str, Any], model: type[BaseModel] | None) -> str:
    kind, given, key = entry["type"], entry.get("input"), str(entry["loc"][-1])
    fields = model.model_fields if model else {}
    if kind == "extra_forbidden":
        return f"unknown key{_closest(key, list(fields))}"
    description = fields[key].description if key in fields else None
    if kind == "string_pattern_mismatch" and description:
        return f"{given!r} does not fit: {description}"
    if kind == "missing":
        return "is required" + (f": {description.rstrip('.')}" if description else "")
    if kind == "literal_error":
        valid = [choice.strip("' ") for choice in entry["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"unknown value {given!r}{_closest(str(given), valid)}"
    if kind in _WANTED:
        return f"should be {_WANTED[kind]}, not {given!r}"
    if kind == "value_error":
        return str(entry["ctx"]["error"])
    return f"{entry['msg'].replace('Input should', 'should')}, not {given!r}"


def _closest(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    return (f"; did you mean {near[0]}?" if near else ";") + f" Valid here: {', '.join(sorted(valid))}"


def _model_at(loc: KeyPath, root: type[BaseModel]) -> type[BaseModel] | None:
    """The section a key at `loc` belongs to."""
    choices = [root]
    for part in loc:
        fields = [model.model_fields[str(part)] for model in choices if str(part) in model.model_fields]
        choices = [model for field in fields for model in _models_in(field.annotation)] or choices
    return choices[0] if choices else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []
