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
        path, owner = _as_written(entry["loc"], root)
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            for key, text in cause.found:
                yield (*path, *key.split(".")), text
        elif entry["type"] == "union_tag_invalid":
            yield (*path, "name") if isinstance(_value(data, path), dict) else path, _wrong_tag(entry["ctx"])
        else:
            yield path, _text(dict(entry), _field_name(path), owner)


def _as_written(loc: KeyPath, root: type[BaseModel]) -> tuple[KeyPath, type[BaseModel] | None]:
    """The path without what pydantic puts between keys (which member of a union it tried), and the section that the
    last key belongs to."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = None
    choices: list[type[BaseModel]] = [root]
    for part in loc:
        if isinstance(part, int):
            path.append(part)
        elif len(choices) > 1:
            choices = [model for model in choices if _tag(model) == part]
        elif choices:
            path.append(part)
            owner = choices[0]
            field = owner.model_fields.get(part)
            choices = _models_in(field.annotation) if field is not None else []
    return tuple(path), owner


def _tag(model: type[BaseModel]) -> str | None:
    """The `name` by which a union tells this member from the others."""
    choices = typing.get_args(model.model_fields["name"].annotation) if "name" in model.model_fields else ()
    return choices[0] if choices else None


def _value(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _field_name(path: KeyPath) -> str:
    """The last key; of an item in a list, the list's."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _wrong_tag(context: dict[str, Any]) -> str:
    valid = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
    return f"unknown value {context['tag']!r}{_closest(context['tag'], valid)}"


def _text(entry: dict[str, Any], key: str, model: type[BaseModel] | None) -> str:
    kind, given = entry["type"], entry.get("input")
    fields = model.model_fields if model else {}
    if kind == "extra_forbidden":
        return f"unknown key{_closest(key, list(fields))}"
    description = " ".join((fields[key].description or "").split()) if key in fields else ""
    if kind in ("too_short", "string_too_short") and not given:
        return f"must not be empty: {description}"
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


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []
