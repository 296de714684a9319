"""What is found out about a machine: its driver, its network, its Pythons."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from starling.infra.bootstrap.driver import driver_complaint
from starling.infra.bootstrap.install import agent_script, agent_settings
from starling.infra.bootstrap.interface import default_route, talking_interface
from starling.infra.bootstrap.pythons import choose_python
from starling.infra.bootstrap.stage0 import BootError

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
ens6\t00000000\t0110000A\t0003\t0\t0\t200\t00000000\t0\t0\t0
ens5\t00000000\t0110000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("driver", "cuda", "fits"),
    [
        ("580.65.06", "13.0", True),
        ("580", "13.2", True),
        ("575.57.08", "13.0", False),
        ("525.60.13", "12.9", True),
        ("580.65.06", "12.8", True),
        ("470.57.02", "12.1", False),
        ("450.80.02", "11.8", True),
        ("418.39", "11.8", False),
        ("100", "99.0", True),
    ],
)
def test_drivers_and_cuda(driver: str, cuda: str, fits: bool) -> None:
    complaint = driver_complaint(driver, cuda)
    assert (complaint is None) is fits
    if complaint is not None:
        assert driver in complaint
        assert f"CUDA {cuda}" in complaint


def test_the_default_route_with_the_least_metric() -> None:
    assert default_route(ROUTES) == "ens5"
    assert default_route(ROUTES.splitlines()[0]) is None


def test_the_interface_that_has_the_nodes_address(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    assert talking_interface("127.0.0.3") == "lo"
    assert talking_interface("203.0.113.7", tmp_path / "route") == "ens5", "nobody here has this address"


def test_old_and_broken_pythons_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho I am no Python\n")
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\necho \'{"version": [3, 9], "packages": {"torch": "2.12.0"}, "site": []}\'\n')
    for path in (broken, old):
        path.chmod(0o700)
    monkeypatch.setenv("STARLING_PYTHON", os.pathsep.join([str(broken), str(old), sys.executable]))
    found = choose_python()
    assert (found.path, found.version) == (sys.executable, sys.version_info[:2])
    assert found.has_torch
    monkeypatch.setenv("STARLING_PYTHON", os.pathsep.join([str(broken), str(old)]))
    with pytest.raises(BootError, match=r"old is 3\.9; looked for"):
        choose_python()


def test_a_python_with_torch_is_preferred_to_an_earlier_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"bare": "null", "outdated": '"2.8.0+cu129"', "fit": '"2.11.0+cu130"'}
    for name, torch in answers.items():
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho \'{{"version": [3, 12], "packages": {{"torch": {torch}}}, "site": []}}\'\n'
        )
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("STARLING_PYTHON", os.pathsep.join(str(tmp_path / name) for name in answers))
    assert choose_python().path == str(tmp_path / "fit")


def test_the_agents_environment() -> None:
    given = {"PATH": "/bin", "GLOO_SOCKET_IFNAME": "mine", "AWS_SECRET_ACCESS_KEY": "secret", "OMP_NUM_THREADS": "3"}
    found = agent_settings(given, Path("/v/bin/python"), "eu-west-1", "ens5")
    assert found["PATH"] == "/v/bin:/bin"
    assert (found["NCCL_SOCKET_IFNAME"], found["GLOO_SOCKET_IFNAME"]) == ("=ens5", "mine")
    assert found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["OMP_NUM_THREADS"] == "3"
    patience = (found["AWS_METADATA_SERVICE_TIMEOUT"], found["AWS_METADATA_SERVICE_NUM_ATTEMPTS"])
    assert patience == ("5", "10"), "botocore's own is one attempt of a second"
    assert "AWS_SECRET_ACCESS_KEY" not in found


def test_the_agents_script_survives_any_value() -> None:
    script = agent_script({"A": "it's $HOME", "BASH_FUNC_x%%": "() { :; }"}, Path("/v/bin/python"))
    assert "export A='it'\"'\"'s $HOME'" in script
    assert "BASH_FUNC" not in script
    assert script.endswith("exec /v/bin/python -m starling.infra.bootstrap.service\n")
