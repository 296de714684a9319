"""Small valid specs."""

from __future__ import annotations

from typing import Any

from starling.orchestrator.spec import Spec


def plain_spec(**sections: Any) -> dict[str, Any]:
    """A spec as a user would write it, with some sections replaced or added."""
    return {
        "name": "small",
        "task": "classification",
        "model": "small-cnn",
        "data": {"dataset": "digits"},
        "training": {"epochs": 2, "global_batch": 64, "optimizer": {"name": "sgd", "lr": 0.1}},
        "nodes": {"min": 1, "max": 3},
        **sections,
    }


def spec(**sections: Any) -> Spec:
    return Spec.model_validate(plain_spec(**sections))
