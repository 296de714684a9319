"""A host whose Python lacks what nodes need gets an environment of its own, once; with a real venv and a real pip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ssh_hosts import SshHosts, eventually

from starling.infra.errors import Misconfigured, ProviderUnavailable
from starling.infra.providers.ssh.calls import ask, package
from starling.infra.providers.ssh.connection import Connection
from starling.infra.providers.ssh.on_host.arrival import unpack

FIND = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from starling.infra.providers.ssh.on_host.environment import find
found = find(Path(sys.argv[2]), prepare=sys.argv[3] == "prepare")
print(json.dumps(found if isinstance(found, dict) else str(found)))
"""


def ours(folder: Path, requirements: str) -> Path:
    """Our package, unpacked, that wants nothing but these."""
    packed = package()
    unpack(packed.archive, folder / packed.sha256)
    (folder / packed.sha256 / "requirements.txt").write_text(requirements)
    return folder / packed.sha256


def name_of(python: list[str], packed: Path) -> str:
    """What the folder of its environment is called."""
    code = f"import sys; sys.path.insert(0, {str(packed)!r})\n"
    code += "from starling.infra.providers.ssh.on_host.environment import _name; print(_name())"
    return subprocess.run([*python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def find(python: list[str], packed: Path, root: Path, how: str) -> Any:
    """What a host with this Python finds; -S hides the packages that this Python has."""
    done = subprocess.run(
        [*python, "-c", FIND, str(packed), str(root), how], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_a_python_that_has_everything_is_used_as_it_is(tmp_path: Path) -> None:
    packed = ours(tmp_path / "packages", "")
    assert find([sys.executable], packed, tmp_path / "root", "look") == sys.executable
    assert not (tmp_path / "root").exists()


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, root = ours(tmp_path / "packages", ""), tmp_path / "root"
    bare = [sys.executable, "-S"]
    assert find(bare, packed, root, "look") == {"empty": True}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert find(bare, packed, root, "prepare") == {"preparing": 0.0}
    eventually(lambda: isinstance(find(bare, packed, root, "prepare"), str), "it is ready", 120.0)
    python = find(bare, packed, root, "look")
    assert Path(python).is_relative_to(root / "environments")
    made_at = Path(python).lstat().st_mtime
    assert find(bare, packed, root, "prepare") == python
    assert Path(python).lstat().st_mtime == made_at
    assert subprocess.run([python, "-c", "import torch"], check=True).returncode == 0, "the host's torch is kept"


def test_why_an_environment_could_not_be_made_is_told(tmp_path: Path) -> None:
    packed, root = ours(tmp_path / "packages", ""), tmp_path / "root"
    bare = [sys.executable, "-S"]
    (folder := root / "environments" / name_of(bare, packed)).mkdir(parents=True)
    (folder / "venv").touch()  # so that no environment can be made there
    assert find(bare, packed, root, "prepare") == {"preparing": 0.0}
    eventually(lambda: "unready" in find(bare, packed, root, "prepare"), "it has failed, and is gone", 120.0)
    assert "could not make an environment" in find(bare, packed, root, "prepare")["unready"]
    assert find(bare, packed, root, "look") == {"empty": True}


def test_an_environment_that_nobody_can_speak_of_any_more_is_told_and_tried_again(tmp_path: Path) -> None:
    """As after a kill for want of memory: no lock is held, and there is neither an environment nor a word."""
    packed, root = ours(tmp_path / "packages", ""), tmp_path / "root"
    bare = [sys.executable, "-S"]
    (folder := root / "environments" / name_of(bare, packed)).mkdir(parents=True)
    (folder / "boot.out").write_text("collecting torch")
    told = find(bare, packed, root, "prepare")["unready"]
    assert "ended without a word" in told
    assert "collecting torch" in told
    (folder / "venv").touch()
    os.utime(folder / "failed", (0, 0))
    assert find(bare, packed, root, "prepare") == {"preparing": 0.0}, "later it is tried again"
    eventually(lambda: (folder / "failed").exists(), "it has failed", 60.0)


def test_whatever_hinders_an_environment_is_told(tmp_path: Path) -> None:
    packed, root = ours(tmp_path / "packages", ""), tmp_path / "root"
    bare = [sys.executable, "-S"]
    (folder := root / "environments" / name_of(bare, packed)).mkdir(parents=True)
    (folder / "install.log").mkdir()  # not to be written, as on a disk that is full
    assert find(bare, packed, root, "prepare") == {"preparing": 0.0}
    eventually(lambda: "unready" in find(bare, packed, root, "prepare"), "it has failed, and is gone", 120.0)
    assert "IsADirectoryError" in find(bare, packed, root, "prepare")["unready"]
    (folder / "failed").unlink()
    (folder / "boot.out").unlink()
    (folder / "boot.out").mkdir()
    assert "boot.out" in find(bare, packed, root, "prepare")["unready"], "not even a beginning can be made"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"preparing": 12.3}, ProviderUnavailable, "is being made ready: its packages are installed, since 12 s"),
        ({"unready": "pip failed"}, Misconfigured, "could not be made ready.* It said: pip failed"),
        ({"unfit": "nodes need Linux"}, Misconfigured, "nodes need Linux"),
    ],
)
def test_what_a_host_answers_becomes_an_error(
    plain_hosts: SshHosts, tmp_path: Path, answer: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A Python that says this whatever it is asked for."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho 'Welcome!'\necho 'starling-answer {json.dumps(answer)}'\n")
    python.chmod(0o700)
    [host, _] = plain_hosts.hosts(python=str(python))
    connection = Connection(host, str(plain_hosts.known_hosts))
    with pytest.raises(error, match=words):
        ask(connection, "~/root", package(), {"do": "launch"})
    connection.close()
