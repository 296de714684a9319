"""Ties between processes, with real ones."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest
from local_nodes import eventually

from starling.infra.processes import PARENT, kill_all, marked, marks_by_pid

MARK = "STARLING_TEST_MARK"


def python(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def mark() -> str:
    return secrets.token_hex(8)


def test_a_child_whose_parent_is_gone_already_does_not_stay() -> None:
    script = "from starling.infra.processes import die_with_parent; die_with_parent(); print('stayed')"
    with python(script, **{PARENT: "1"}) as orphan:
        assert orphan.communicate(timeout=30)[0] == ""
        assert orphan.returncode == 1
    with python(script, **{PARENT: str(os.getpid())}) as child:
        assert child.communicate(timeout=30)[0] == "stayed\n"


def test_a_child_dies_with_its_parent_and_does_not_hand_the_parents_pid_on(mark: str) -> None:
    child = (
        "import os, time; from starling.infra.processes import die_with_parent, PARENT; die_with_parent();"
        "print(PARENT in os.environ, flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; from starling.infra.processes import PARENT;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env={{**os.environ, PARENT: str(os.getpid())}});"
        "time.sleep(60)"
    )
    with python(parent, **{MARK: mark}) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "False\n"
        assert len(marked({MARK: mark})) == 2
        started.kill()
        eventually(lambda: not marked({MARK: mark}), "the child is gone too")


def test_marks_are_matched_whole_and_together(mark: str) -> None:
    with python("import time; print(1, flush=True); time.sleep(60)", **{MARK: mark, "OTHER_MARK": "x"}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [found.pid for found in marked({MARK: mark, "OTHER_MARK": "x"})] == [process.pid]
        assert marked({MARK: mark, "OTHER_MARK": "y"}) == []
        assert marked({MARK: mark[:-1]}) == []
        assert marked({}) == []
        assert marks_by_pid({MARK})[process.pid] == {MARK: mark}
        assert kill_all({MARK: mark}) == 1


def test_kill_all_catches_what_forks_while_it_kills(mark: str) -> None:
    """Every process forks a successor as fast as it can, until there are sixty."""
    script = (
        "import os, time\nfor _ in range(60):\n    if os.fork(): time.sleep(60)\n    time.sleep(0.002)\ntime.sleep(60)"
    )
    with python(script, **{MARK: mark}):
        eventually(lambda: len(marked({MARK: mark})) > 10, "the chain grows")
        assert kill_all({MARK: mark}) > 10
        assert marked({MARK: mark}) == []
