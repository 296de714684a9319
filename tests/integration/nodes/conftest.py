from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_nodes import LocalNodes, local_nodes


@pytest.fixture
def nodes_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], LocalNodes]]:
    """Local nodes whose supervisors behave as told."""
    with ExitStack() as stack:
        yield lambda mode: stack.enter_context(local_nodes(tmp_path / "home", monkeypatch, mode))


@pytest.fixture
def nodes(nodes_with: Callable[[str], LocalNodes]) -> LocalNodes:
    """Local nodes that train."""
    return nodes_with("train")
