"""User data, really executed: from nothing to a running agent, and to the machine's end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from starling.infra.records import NodeState
from tests.integration.nodes.local_nodes import eventually
from tests.support import confined
from tests.support.booting import NODE, SUPPORT, BootMachine
from tests.support.pythons import installed

OLD_PYTHONS = ("python3.8", "python3.9", "python3.10")


def test_a_node_boots_trains_and_powers_off_when_it_is_done(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    machine.boot()
    machine.wait_training()
    assert not machine.powered_off
    machine.shut_down()
    assert machine.wait() == 0, machine.console
    assert machine.powered_off
    status = machine.status()
    assert status is not None
    assert (status.node, status.instance_id, status.address) == (NODE, "i-0123456789abcdef0", "127.0.0.1")
    assert status.ended is not None
    assert "SIGTERM" in status.ended.reason, "the shutdown reached the agent, which drained"
    assert status.unfit is None
    lines = machine.log().splitlines()
    assert "starling boots run booted" in lines[0]
    assert lines.index("stand-in supervisor: train") > next(i for i, line in enumerate(lines) if "starting the" in line)


def test_a_tag_that_appears_late_is_waited_for(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    late = machine.tags.pop("starling:node")
    machine.boot()
    eventually(lambda: "starling boots" in machine.console, "the boot has begun")
    machine.tag("starling:node", late)
    machine.wait_training()


@pytest.mark.skipif(not confined.available(), reason="this kernel has no Landlock of version 3")
def test_nothing_is_written_outside_the_root(machine: BootMachine) -> None:
    """The kernel refuses every other write, and yet the node boots, trains and ends in order."""
    machine.prepare_run(setup=["echo made by setup > here"])
    machine.bring_image()
    here = [str(machine.root), str(machine.folder / "power")]
    machine.boot(sys.executable, str(SUPPORT / "confined.py"), *here, "--", sys.executable)
    machine.wait_training()
    machine.shut_down()
    assert machine.wait() == 0, machine.console
    assert machine.powered_off
    assert (machine.root / "nodes" / NODE / "here").read_text() == "made by setup\n"
    assert machine.outside() == []


def test_the_confinement_holds(tmp_path: Path) -> None:
    """What the test above relies on."""
    if not confined.available():
        pytest.skip("this kernel has no Landlock of version 3")
    (tmp_path / "in").mkdir()
    write = f"echo x > {tmp_path}/in/x && ! echo y > {tmp_path}/y && ! mkdir {tmp_path}/z"
    command = [sys.executable, str(SUPPORT / "confined.py"), str(tmp_path / "in"), "--", "/bin/sh", "-c", write]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_agent_that_is_killed_starts_again(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    machine.boot()
    machine.wait_training()
    killed = machine.process("starling.infra.agent")
    supervisor = machine.process("stand_in_supervisor")
    killed.kill()
    eventually(lambda: machine.log().count("stand-in supervisor: train") == 2, "it trains again", 150)
    assert not supervisor.is_running()
    assert not machine.powered_off
    status = machine.status()
    assert status is not None
    assert status.state is not NodeState.ENDED
    assert "the agent ended with -9" in machine.console


def test_a_service_that_is_killed_takes_the_machine_with_it(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    machine.boot()
    machine.wait_training()
    machine.process("starling.infra.bootstrap.service").kill()
    assert machine.wait() == 1
    assert machine.powered_off


@pytest.mark.parametrize("name", OLD_PYTHONS)
def test_older_pythons_boot_too(machine: BootMachine, name: str) -> None:
    """Images bring old ones; only the agent needs a new one."""
    if (python := installed(name)) is None:
        pytest.skip(f"there is no {name} here")
    machine.prepare_run()
    machine.bring_image()
    machine.boot(python)
    machine.wait_training()
