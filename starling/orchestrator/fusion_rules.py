"""What a spec of task lesions or fusion must say besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FUSION_MODELS = {"lesions": "tile-detector", "fusion": "fusion-net"}
"""Task -> the one model that it trains."""
ROLES = ("main", "lesions")
"""What a fusion is made of; `task.options` may give them other names in `needs`."""


def fusion_problems(
    task: str, options: Mapping[str, Any], model: str | None, needs: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(key, what is wrong and would be right) of a spec whose task is lesions or fusion."""
    found = []
    if model != FUSION_MODELS[task]:
        found.append(
            ("model", f"task {task} trains {FUSION_MODELS[task]}, not {model}; write model: {FUSION_MODELS[task]}")
        )
    if task == "fusion":
        names = {role: options.get(role, role) for role in ROLES}
        found += [
            ("needs", f"task fusion needs the run of its {_WHAT[role]}: needs: {{{name}: SPEC.yaml}}")
            for role, name in names.items()
            if name not in needs
        ]
    return found


_WHAT = {"main": "main network", "lesions": "lesion detector"}
