"""A whole run on two hosts, through the public commands: bits, interruptions, and access to its nodes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssh_hosts import SshHosts

from starling.infra.processes import HOME
from tests.integration.runs.commands import Commands


@pytest.fixture
def starling(plain_hosts: SshHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    hosts = plain_hosts  # what differs between ssh servers is tested by single nodes
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.setenv("STARLING_STORE", hosts.store.uri)
    commands = Commands(tmp_path)
    commands.write_spec({}, min=1, max=2)
    on_hosts(commands, hosts)
    try:
        yield commands
        assert hosts.left_over() == []
    finally:
        commands.kill_controllers()


def on_hosts(commands: Commands, hosts: SshHosts) -> None:
    listed = [
        {
            "address": host.address,
            "port": host.port,
            "key": host.key,
            "python": host.python,
            "price_per_hour": 0.5,
        }
        for host in hosts.hosts()
    ]
    spec = yaml.safe_load(commands.spec.read_text())
    spec["provider"] = {"name": "ssh", "known_hosts": str(hosts.known_hosts), "hosts": listed}
    commands.spec.write_text(yaml.safe_dump(spec))


def test_a_run_on_hosts_survives_a_notice_and_a_kill(
    starling: Commands, plain_hosts: SshHosts, undisturbed: str
) -> None:
    hosts = plain_hosts
    plan = starling.json("plan", str(starling.spec))
    assert plan["offer"]["provider"] == "ssh"
    starling.run()
    nodes = {node["id"]: node for node in starling.wait_training(2)["nodes"]}
    assert {node["zone"] for node in nodes.values()} == {host.name for host in hosts.hosts()}
    for node, next_node, how in (("r.0.0", "r.0.1", ("--notice", "5")), ("r.1.0", "r.1.1", ("--hard",))):
        assert starling.type("interrupt", "r", "--node", node, *how).returncode == 0
        starling.wait(f"{next_node} to train", lambda s, next_node=next_node: trains(s, next_node))
    result = starling.result()
    assert result["state"] == "done", result
    assert result["state_sha256"] == undisturbed
    assert result["interruptions"] == 2
    assert result["cost"] > 0
    for index in (0, 1):
        assert list((hosts.root(index) / "nodes").iterdir()) == [], "nothing of the nodes is left on the hosts"


def trains(status: dict[str, Any], node: str) -> bool:
    return any(known["id"] == node and known["state"] == "training" for known in status["nodes"])


def test_files_and_shells_on_the_nodes(starling: Commands, tmp_path: Path, plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    starling.run()
    starling.wait_training(2)
    (tmp_path / "notes.txt").write_text("for every node")
    put = starling.json("put", "r", str(tmp_path / "notes.txt"), "work/notes.txt")["put"]
    assert sorted(put) == ["r.0.0", "r.1.0"]
    for index, node in enumerate(sorted(put)):
        there = hosts.root(index) / "nodes" / node / "work"
        assert (there / "notes.txt").read_text() == "for every node"
        assert [path.name for path in there.glob(".notes*")] == []
    got = starling.json("get", "r", "0.0:work", str(tmp_path / "got"))
    assert got["node"] == "r.0.0"
    assert (tmp_path / "got" / "work" / "notes.txt").read_text() == "for every node"
    assert (tmp_path / "got" / "work" / "r" / "job.json").is_file()

    shell = subprocess.run(
        [sys.executable, "-m", "starling.cli", "ssh", "r", "0.0"],
        input="pwd; exit 7\n", capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SHELL": "/bin/sh"},
    )  # fmt: skip
    if shutil.which("ssh"):
        assert shell.stdout.strip().splitlines()[-1] == str(hosts.root(0) / "nodes" / "r.0.0"), shell
        assert shell.returncode == 7
    else:
        assert (shell.returncode, "`ssh` is not installed" in shell.stderr) == (2, True), shell

    for words, complaint in (
        (("ssh", "r"), "name one of r.0.0, r.1.0"),
        (("ssh", "r", "r.5.0"), "no running node r.5.0"),
        (("get", "r", "work", str(tmp_path / "more")), "name one of r.0.0, r.1.0"),
        (("get", "r", "0.0:nothing", str(tmp_path / "more")), "nothing is not there"),
        (("put", "r", str(tmp_path / "missing"), "x"), "missing is not there"),
        (("put", "r", str(tmp_path / "notes.txt"), "elsewhere:x"), "is no node of run r"),
    ):
        done = starling.type(*words)
        assert (done.returncode, complaint in done.stderr) == (2, True), done
    assert not (tmp_path / "more").exists()
    assert starling.type("stop", "r").returncode == 0


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """state SHA-256 of the same run, which nothing happens to."""
    from tests.support.rounds import Run, probe_spec

    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Run(folder, str(folder / "store"), probe_spec(epochs=20))
    assert run.train(["a"]) == [0]
    return str(run.manifests()[-1].state_sha256)
