"""Says what is wrong with options that a user wrote."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def describe(error: ValidationError, where: str, options: type[BaseModel]) -> str:
    """One line for each mistake: the key within the spec, what is wrong, and what would be right."""
    return "\n".join(_line(detail, where, options) for detail in error.errors(include_url=False))


def _line(detail: ErrorDetails, where: str, options: type[BaseModel]) -> str:
    path = ".".join([where, *map(str, detail["loc"])])
    if detail["type"] != "extra_forbidden":
        return f"{path}: {detail['msg']}; it is {detail['input']!r}"
    known = f"; there are {', '.join(options.model_fields)}" if len(detail["loc"]) == 1 else ""
    return f"{path}: there is no such option{known}"
