"""The spec's setup commands."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from starling.infra.agent.setup_commands import run_setup
from starling.infra.errors import StarlingError


class Node:
    """A code folder, and what setting it up printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = b""

    def set_up(self, *commands: str, content: str = "code-1") -> None:
        run_setup(
            commands,
            folder=self.folder,
            done=self.folder / ".done",
            content=content,
            python_path=(self.folder / "site",),
            sink=self._take,
        )

    def _take(self, data: bytes) -> None:
        self.output += data


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_they_run_in_order_in_the_code_folder_with_our_python_first(node: Node) -> None:
    node.set_up("echo one > made", "cat made; command -v python; echo $PYTHONPATH")
    lines = node.output.decode().splitlines()
    assert lines[:2] == ["setup: echo one > made", "setup: cat made; command -v python; echo $PYTHONPATH"]
    assert lines[2:4] == ["one", str(Path(sys.executable).with_name("python"))]
    assert lines[4].split(":")[0] == str(node.folder / "site")


def test_once_for_each_list_and_code(node: Node) -> None:
    count = "echo x >> count"
    for content in ("code-1", "code-1", "code-2"):
        node.set_up(count, content=content)
    node.set_up(count, "true", content="code-2")
    assert (node.folder / "count").read_text() == "x\n" * 3


def test_none_are_no_work(node: Node) -> None:
    node.set_up()
    assert list(node.folder.iterdir()) == []


def test_the_first_that_fails_ends_it_and_says_how(node: Node) -> None:
    with pytest.raises(StarlingError) as caught:
        node.set_up("echo fine", "seq 30\nls /nowhere-at-all\necho never", "echo never")
    lines = str(caught.value).splitlines()
    assert lines[0] == "setup command 'seq 30\\nls /nowhere-at-all\\necho never' ended with exit code 2:"
    assert "No such file or directory" in lines[-1]
    assert len(lines) == 16
    assert b"never\n" not in node.output.replace(b"echo never\n", b"")
    node.set_up("echo now")
    assert node.output.endswith(b"setup: echo now\nnow\n"), "what failed is not taken for done"


def test_a_service_that_a_command_leaves_running_holds_up_nobody(node: Node) -> None:
    began = time.monotonic()
    node.set_up("sleep 20 & echo $! > pid")
    assert time.monotonic() - began < 15
    node.set_up("kill $(cat pid)", content="after")
