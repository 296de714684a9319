"""Instances of the emulated region are real processes: they boot, hear of their end, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from starling.infra.imds.client import ENDPOINT_VARIABLE, ImdsClient
from starling.infra.processes import marked, marks_by_pid
from starling.infra.region.driver import Driver
from starling.infra.region.keeper import MACHINE
from starling.infra.region.region import EmulatedRegion
from starling.infra.region.script import parse_script
from tests.integration.region.conftest import PATIENCE, Shop, clients_of, wait_for

IDLE = f"""#!/bin/sh
echo "$STARLING_ROOT" > "$STARLING_ROOT/booted"
echo "${ENDPOINT_VARIABLE}" > "$STARLING_ROOT/endpoint"
nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader
setsid sh -c 'sleep 1000' &
env -i /bin/sleep 1000 &
echo booted
sleep 1000
"""
KEEPER = b"starling.infra.region.keeper"
POWER_OFF = '#!/bin/sh\nsetsid sleep 1000 &\nsh -c "$STARLING_POWEROFF"\nsleep 1000\n'


@pytest.fixture
def shop(region: EmulatedRegion) -> Shop:
    return Shop(clients_of(region.environment)("ec2"), user_data=IDLE)


def booted(region: EmulatedRegion, instance_id: str) -> Path:
    """Its folder, once its user data has come to its idle end."""
    wait_for("the boot", lambda: "booted" in region.cloud.console(instance_id))
    return region.hypervisor.folder(instance_id)


def processes(folder: Path) -> list[int]:
    return [process.pid for process in marked({MACHINE: str(folder)})]


def test_an_instance_boots_its_user_data_and_dies_when_it_is_terminated(region: EmulatedRegion, shop: Shop) -> None:
    (bought,) = shop.buy("g4dn.12xlarge", zones=("a",))
    folder = booted(region, bought)
    assert (folder / "root" / "booted").read_text().strip() == str(folder / "root")
    console = region.cloud.console(bought)
    assert [line for line in console.splitlines() if "T4" in line] == [
        f"{index}, NVIDIA T4, 16384 MiB" for index in range(4)
    ]
    # Keeper, script, three sleeps: one of them has emptied its environment, one is started after the last word.
    wait_for("its processes", lambda: len(processes(folder)) >= 5)
    told = shop.ec2.get_console_output(InstanceId=bought)["Output"]
    assert "booted" in told
    shop.ec2.terminate_instances(InstanceIds=[bought])
    wait_for("its end", lambda: not processes(folder))
    assert shop.look(bought)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_an_instance_learns_who_it_is_and_of_its_end(region: EmulatedRegion, shop: Shop) -> None:
    (bought,) = shop.buy(zones=("a",), tags={"starling:node": "r.0.0"})
    folder = booted(region, bought)
    imds = ImdsClient((folder / "root" / "endpoint").read_text().strip(), timeout=PATIENCE)
    assert imds.get("meta-data/instance-id") == bought
    assert imds.get("meta-data/instance-life-cycle") == "spot"
    assert imds.get("meta-data/placement/availability-zone") == "us-east-1a"
    assert imds.get("meta-data/tags/instance/starling:node") == "r.0.0"
    role = imds.get("meta-data/iam/security-credentials/")
    assert region.s3.access_key in str(imds.get(f"meta-data/iam/security-credentials/{role}"))
    assert imds.get("meta-data/spot/instance-action") is None
    region.cloud.recommend_rebalance(bought)
    wait_for("the recommendation", lambda: imds.get("meta-data/events/recommendations/rebalance"))
    region.cloud.interrupt(bought, notice_seconds=600)
    wait_for("the notice", lambda: imds.get("meta-data/spot/instance-action"))
    assert processes(folder)
    region.cloud.interrupt(bought, None)  # that an end comes when it was announced, see below: a script takes and loses
    wait_for("its end", lambda: not processes(folder))
    assert shop.look(bought)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_an_instance_that_powers_itself_off_is_terminated(region: EmulatedRegion) -> None:
    shop = Shop(clients_of(region.environment)("ec2"), user_data=POWER_OFF)
    (bought,) = shop.buy()
    folder = region.hypervisor.folder(bought)
    wait_for("its end", lambda: shop.look(bought)["State"]["Name"] == "terminated")
    assert shop.look(bought)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    wait_for("the end of its processes", lambda: not processes(folder))


def test_an_instance_whose_keeper_is_killed_leaves_nothing(region: EmulatedRegion, shop: Shop) -> None:
    (bought,) = shop.buy()
    folder = booted(region, bought)
    [keeper] = [pid for pid in processes(folder) if KEEPER in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(keeper, signal.SIGKILL)
    wait_for("its end", lambda: shop.look(bought)["State"]["Name"] == "terminated")
    wait_for("the end of its processes", lambda: not marks_by_machine(folder))


def test_a_script_takes_and_loses_instances(region: EmulatedRegion, shop: Shop) -> None:
    bought = shop.buy(count=3)
    wait_for("the boots", lambda: all("booted" in region.cloud.console(each) for each in bought))
    script = parse_script(
        [
            {"at": 0, "dry": {}},
            {"at": "60s", "take": {"nodes": 1, "notice": "60s"}},
            {"at": "60s", "lose": {"nodes": 1}},
        ],
        "script",
    )
    driver = Driver(region.cloud, script, scale=60)
    driver.play()
    assert shop.buy() == []
    driver.begin()

    def ended() -> int:
        driver.play()
        return sum(not machine.alive for machine in region.cloud.instances())

    wait_for("the loss", lambda: ended() >= 1)
    wait_for("the end of the notice", lambda: ended() == 2)
    assert {machine.reason for machine in region.cloud.instances()} == {"", "Server.SpotInstanceTermination"}


def test_buckets_of_a_stack_are_in_the_s3_server(region: EmulatedRegion) -> None:
    aws = clients_of(region.environment)
    template = '{"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "stack-bucket"}}}}'
    aws("cloudformation").create_stack(StackName="s", TemplateBody=template)
    s3 = aws("s3")
    s3.put_object(Bucket="stack-bucket", Key="k", Body=b"v")
    assert s3.get_object(Bucket="stack-bucket", Key="k")["Body"].read() == b"v"


SERVER = [sys.executable, "-P", "-m", "starling.infra.region"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_region_that_is_killed_leaves_no_process(number: signal.Signals, short_folder: Path) -> None:
    server = subprocess.Popen([*SERVER, str(short_folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        import json

        shop = Shop(clients_of(json.loads(server.stdout.readline())["environment"])("ec2"), user_data=IDLE)
        (bought,) = shop.buy()
        folder = short_folder.resolve() / "vm" / bought
        wait_for("the boot", (folder / "root" / "endpoint").exists)
        assert processes(folder)
        server.send_signal(number)
        server.wait(PATIENCE)
        wait_for("the end of its machines", lambda: not processes(folder))
        wait_for("the end of its S3 server", lambda: not servers_below(short_folder))
    finally:
        server.kill()
        server.wait()
        for stream in (server.stdin, server.stdout):
            assert stream is not None
            stream.close()


def test_a_region_whose_starter_dies_removes_its_folder(short_folder: Path) -> None:
    home = short_folder / "home"
    folder = short_folder / "r"
    folder.mkdir()
    bystander = subprocess.Popen(["sleep", "1000"], env={"STARLING_HOME": str(home.resolve())})
    server = subprocess.Popen(
        [*SERVER, str(folder), "--home", str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdin is not None
        server.stdout.readline()
        server.stdin.close()  # as the kernel does it for whoever is killed
        assert server.wait(60) == 0
        assert not folder.exists()
        assert bystander.wait(10) == -signal.SIGKILL
    finally:
        for process in (server, bystander):
            process.kill()
            process.wait()
        assert server.stdout is not None
        server.stdout.close()


def marks_by_machine(folder: Path) -> list[int]:
    return [pid for pid, marks in marks_by_pid([MACHINE]).items() if marks[MACHINE] == str(folder)]


def servers_below(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"-dir={folder.resolve()}" in command.replace("\0", " "):
            found.append(command)
    return found


def test_region_time_is_wall_time_unless_scaled(region: EmulatedRegion, shop: Shop) -> None:
    (bought,) = shop.buy()
    before = time.time()
    region.cloud.interrupt(bought, notice_seconds=100)
    after = time.time()
    taken_at = region.cloud.warned(bought).taken_at
    assert taken_at is not None
    assert before <= taken_at - 100 <= after
