"""What a resumed run may do otherwise than before: where it runs, not what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starling.infra.errors import UsageError
from starling.orchestrator.loading import load_spec, override, override_paths
from starling.orchestrator.spec import Spec

_MAY_CHANGE = ("nodes", "limits", "provider", "checkpoint", "setup")
_MAY_CHANGE_OF_COMMAND = ("every", "grace", "keep", "settle", "logs")
_WHY = "a resumed run computes what it was created to compute, so that its result stays reproducible"


def changed_spec(before: Spec, run: str, overrides: list[str], spec_file: Path | None = None) -> Spec:
    """The spec that a run goes on with: the file's instead of the stored one, with the overrides on top. Raises
    UsageError that names every value which may not change."""
    if spec_file is None:
        return _overridden(before, run, overrides)
    after = load_spec(spec_file, overrides)
    overridden = any(path.partition(".")[0] == "needs" for path in override_paths(overrides))
    if after.needs.keys() == before.needs.keys() and not overridden:
        # The runs that were made, or named, then: what this run is, not where it runs.
        after = after.model_copy(update={"needs": before.needs})
    forbidden = [text for path, text in _differences(before, after) if not _may_change(path)]
    if forbidden:
        raise UsageError(
            "\n".join(f"{spec_file}: {text} since run {run} was created, but it may not change" for text in forbidden)
            + f"\n{_WHY}; only {_changeable(before)} may change. For other values create a new run"
        )
    return after


def differences(before: Spec, after: Spec) -> list[str]:
    """Every value that is another one, as "nodes.max: 3 -> 2"."""
    return [text for _, text in _differences(before, after)]


def _overridden(before: Spec, run: str, overrides: list[str]) -> Spec:
    paths = override_paths(overrides)
    for path in paths:
        if not _may_change(path):
            raise UsageError(
                f"-o {path}=...: {_WHY}; only {_changeable(before)} may change. For other values create a new run"
            )
    resolved = before.resolved()
    if "nodes.gpus_per_node" in paths:
        resolved["nodes"]["ranks_per_node"] = None  # follows the number of GPUs unless it is given as well
    return override(resolved, overrides, f"spec of run {run}")


def _may_change(path: str) -> bool:
    section, _, key = path.partition(".")
    return section in _MAY_CHANGE or (section == "command" and key in _MAY_CHANGE_OF_COMMAND)


def _changeable(spec: Spec) -> str:
    keys = [f"{section}.*" if section != "setup" else section for section in _MAY_CHANGE]
    if spec.command is not None:
        keys += [f"command.{key}" for key in _MAY_CHANGE_OF_COMMAND]
    return ", ".join(keys)


def _differences(before: Spec, after: Spec) -> list[tuple[str, str]]:
    """(key, both values) of what differs."""
    old, new = _flat(before.resolved()), _flat(after.resolved())
    return [
        (key, f"{key}: {old.get(key)!r} -> {new.get(key)!r}")
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
