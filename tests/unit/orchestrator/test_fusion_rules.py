"""What specs of the tasks lesions and fusion must say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.specs import spec

NEEDS = {"main": "high.yaml", "lesions": "lesions.yaml"}


def test_complete_specs_are_taken() -> None:
    assert spec(task="lesions", model="tile-detector")
    assert spec(task="fusion", model="fusion-net", needs=NEEDS)
    renamed = {"name": "fusion", "options": {"main": "big", "lesions": "small"}}
    assert spec(task=renamed, model="fusion-net", needs={"big": "a.yaml", "small": "b.yaml"})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"task": "lesions", "model": "small-cnn"}, "task lesions trains tile-detector, not small-cnn"),
        ({"task": "fusion", "model": None, "needs": NEEDS}, "task fusion trains fusion-net, not None"),
        ({"task": "fusion", "model": "fusion-net"}, "the run of its main network: needs: {main: SPEC.yaml}"),
        ({"task": "fusion", "model": "fusion-net", "needs": {"main": "a.yaml"}}, "needs: {lesions: SPEC.yaml}"),
        ({"task": "fusion", "model": "fusion-net", "needs": NEEDS, "data": None}, "task fusion needs a dataset"),
    ],
)
def test_what_is_missing_is_named(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        spec(**sections)
