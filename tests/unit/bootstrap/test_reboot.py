"""A machine that was a node powers off when it is rebooted, and no other does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from starling.infra.bootstrap.machine import BOOT_ID, INSTANCE_ID, power_off_at_reboot, reboot_script
from starling.infra.bootstrap.stage0 import POWEROFF

THIS_BOOT = BOOT_ID.read_text().strip()


@pytest.mark.parametrize(
    ("instance", "boot", "powers_off"),
    [
        ("i-1", "an-earlier-one", True),
        ("i-1", THIS_BOOT, False),
        ("i-2", "an-earlier-one", False),  # an image was made of a node's disk
    ],
)
def test_only_a_later_boot_of_the_same_instance_ends_it(
    tmp_path: Path, instance: str, boot: str, powers_off: bool
) -> None:
    known = tmp_path / "instance-id"
    known.write_text(f"{instance}\n")
    script = reboot_script("i-1", boot, f"touch {tmp_path}/off", known)
    subprocess.run(["/bin/sh", "-c", script], check=True, capture_output=True)
    assert (tmp_path / "off").exists() is powers_off


def test_a_machine_whose_instance_is_unknown_stays_on(tmp_path: Path) -> None:
    script = reboot_script("i-1", "an-earlier-one", f"touch {tmp_path}/off", tmp_path / "none")
    subprocess.run(["/bin/sh", "-c", script], check=True, capture_output=True)
    assert not (tmp_path / "off").exists()


def test_cloud_init_is_given_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLING_POWEROFF", raising=False)
    power_off_at_reboot("i-1", tmp_path)
    [script] = tmp_path.iterdir()
    assert script.stat().st_mode & 0o111
    assert script.read_text() == reboot_script("i-1", THIS_BOOT, POWEROFF, INSTANCE_ID)


def test_nothing_is_written_where_power_is_emulated_or_cloud_init_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARLING_POWEROFF", "true")
    power_off_at_reboot("i-1", tmp_path)
    monkeypatch.delenv("STARLING_POWEROFF")
    power_off_at_reboot("i-1", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
