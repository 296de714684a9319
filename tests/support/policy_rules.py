"""IAM's rules for identity policies, as far as ours use them, to judge what moto cannot: resources and conditions.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def allows(policy: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Whether one statement allows the action on the resource in this context (condition key -> value)."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in statement["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
        and _holds(statement.get("Condition", {}), context or {})
        for statement in policy["Statement"]
    )


def _holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """Every operator and key must match; a key that the request lacks does not."""
    return all(
        key in context and any(_matches(operator, wanted, context[key]) for wanted in _as_list(values))
        for operator, keys in conditions.items()
        for key, values in keys.items()
    )


def _matches(operator: str, wanted: str, given: str) -> bool:
    return {"StringEquals": given == wanted, "StringLike": fnmatchcase(given, wanted)}[operator]


def _as_list(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else list(values)
