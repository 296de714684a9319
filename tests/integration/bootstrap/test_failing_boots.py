"""Boots that fail: the store and the console learn why, and the machine powers off."""

from __future__ import annotations

import sys
import time

import pytest

from starling.infra import layout
from starling.infra.bootstrap.package import pack_package
from starling.infra.records import Failure, NodeState, NoticeKind
from tests.integration.nodes.local_nodes import eventually
from tests.support.booting import NODE, RUN, BootMachine

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*driver_version*) echo 470.57.02 ;;
*) echo "0, GPU-8f6c1d2a, 23028 MiB" ;;
esac
"""
CUDA_PYTHON = f"""#!/bin/sh
# Stands in for a Python whose torch is built for CUDA.
case "$2" in
*version.py*) echo 13.0 ;;
*) exec {sys.executable} "$@" ;;
esac
"""


def ended_because(machine: BootMachine, *parts: str) -> None:
    """It has ended as a node that could not boot, and says so everywhere."""
    assert machine.wait() == 1, machine.console
    assert machine.powered_off
    status = machine.status()
    assert status is not None, machine.console
    assert status.state is NodeState.ENDED
    assert status.ended is not None
    assert status.unfit == status.ended.reason
    for part in parts:
        assert part in status.unfit
        assert part in machine.log()
        assert part in machine.console


def test_an_archive_that_is_not_there(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.boot(package_sha256="ab" * 32)
    ended_because(machine, f"code/{'ab' * 32}.tar.gz is not in the store")


def test_an_archive_that_is_not_what_its_name_says(machine: BootMachine) -> None:
    machine.prepare_run()
    sha256 = pack_package(machine.store)
    machine.store.put(layout.code(sha256), machine.store.get(layout.code(sha256)).data + b"x")
    machine.boot(package_sha256=sha256)
    ended_because(machine, "is damaged: its SHA-256 is")
    assert not (machine.root / "package").exists()


def test_no_python_that_is_new_enough(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.environment["STARLING_PYTHON"] = "/nowhere/python3"
    machine.boot()
    ended_because(machine, "no Python 3.11 or later (none was found; looked for /nowhere/python3)", "STARLING_PYTHON")


def test_a_driver_that_is_too_old(machine: BootMachine) -> None:
    machine.prepare_run(gpus=1)
    machine.put_on_path("nvidia-smi", NVIDIA_SMI)
    machine.bring_image(str(machine.put_on_path("cuda-python", CUDA_PYTHON)))
    machine.boot()
    ended_because(machine, "the NVIDIA driver is 470.57.02, but torch is built for CUDA 13.0, which needs 580 or later")


def test_a_gpu_that_is_sick(machine: BootMachine) -> None:
    machine.prepare_run(gpus=1)
    machine.put_on_path("nvidia-smi", "#!/bin/sh\necho 'Unable to determine the device handle'\nexit 15\n")
    machine.bring_image()
    machine.boot()
    ended_because(machine, "nvidia-smi failed with 15: Unable to determine the device handle")


def test_a_service_manager_that_refuses(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    machine.environment["STARLING_SERVICE"] = "no-such-service-manager"
    machine.boot()
    ended_because(machine, "the service cannot be started: no-such-service-manager: No such file or directory")


@pytest.mark.parametrize("taken", [False, True])
def test_a_shutdown_while_booting_is_nobodys_fault(machine: BootMachine, taken: bool) -> None:
    machine.prepare_run()
    asked = machine.folder / "asked"
    machine.put_on_path("slow-python", f"#!/bin/sh\ntouch {asked}\nexec sleep 600\n")
    machine.environment["STARLING_PYTHON"] = "slow-python"
    machine.boot()
    eventually(asked.exists, "stage 1 looks for a Python; so stage 0 hears of a shutdown by now", 150)
    taken_at = time.time() + 1
    if taken:
        machine.announce_interruption(taken_at)
    machine.shut_down()
    assert machine.wait() == 1
    assert machine.powered_off
    status = machine.status()
    assert status is not None
    assert status.ended is not None
    assert (status.ended.reason, status.unfit) == ("the machine was shut down while it booted", None)
    assert (status.notice is not None) is taken
    if status.notice is not None:
        assert (status.notice.kind, status.notice.takes_effect_at) == (NoticeKind.INTERRUPTION, int(taken_at))
    assert "the machine was shut down while it booted" in machine.log()


def test_a_setup_command_that_fails(machine: BootMachine) -> None:
    machine.prepare_run(setup=["echo first", "echo no such luck >&2; exit 7"])
    machine.bring_image()
    machine.boot()
    assert machine.wait() == 0, "the agent has ended in order"
    assert machine.powered_off
    status = machine.status()
    assert status is not None
    assert status.ended is not None
    assert "setup command 'echo no such luck >&2; exit 7' ended with exit code 7:" in status.ended.reason
    assert "no such luck" in status.ended.reason
    assert "setup: echo first\nfirst\n" in machine.log()
    [key] = [info.key for info in machine.store.list(layout.failures(RUN, 0))]
    failure = Failure.from_bytes(machine.store.get(key).data)
    assert (failure.node, failure.fatal) == (NODE, False)
    assert "exit code 7" in failure.error


def test_an_agent_that_never_comes_up(machine: BootMachine) -> None:
    machine.prepare_run()
    machine.bring_image()
    machine.environment["STARLING_AGENT_OPTIONS"] = "--no-such-option"
    machine.boot()
    assert machine.wait() == 0
    assert machine.powered_off
    status = machine.status()
    assert status is not None
    assert status.unfit is not None
    assert "the agent crashed 4 times, last with 2:" in status.unfit
    assert "unrecognized arguments: --no-such-option" in status.unfit
