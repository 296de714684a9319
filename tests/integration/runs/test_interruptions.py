"""Whatever happens to its nodes, a run ends with the bits of one that nothing happened to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from starling.infra.store.fault_file import FAULTS, write_rules
from starling.infra.store.faults import Fault, FaultRule
from tests.integration.runs.commands import Commands, all_train


def assert_same_bits(result: dict[str, Any], undisturbed: str) -> None:
    assert result["state"] == "done", result
    assert result["state_sha256"] == undisturbed


def rank0(status: dict[str, Any]) -> str:
    (node,) = (n["id"] for n in status["nodes"] if n["state"] == "training" and n["rank"] == 0)
    return str(node)


def other(status: dict[str, Any]) -> str:
    return next(n["id"] for n in status["nodes"] if n["state"] == "training" and n["rank"] != 0)


def test_a_notice_costs_no_step_and_the_replacement_comes_before_the_node_goes(
    starling: Commands, undisturbed: str
) -> None:
    starling.run()
    status = starling.wait_training(3)
    leaving = other(status)
    assert starling.type("interrupt", "r", "--node", leaving, "--notice", "60").returncode == 0
    starling.wait(
        "the replacement, and the next round",
        lambda s: s["round"] > status["round"] and any(n["id"].endswith(".1") for n in s["nodes"]),
    )
    result = starling.result()
    assert_same_bits(result, undisturbed)
    assert result["steps_redone"] == 0
    assert result["interruptions"] == 1
    (recovery,) = result["recoveries"]
    assert recovery["kind"] == "notice"
    assert 0 < recovery["seconds"] < 60
    (notice,) = starling.events("node-notice")
    replacement = starling.events("node-wanted")[-1]
    assert replacement["at"] < notice["data"]["takes_effect_at"]


@pytest.mark.parametrize("victim", [rank0, other])
def test_a_node_is_killed(starling: Commands, undisturbed: str, victim: Any) -> None:
    starling.run()
    status = starling.wait_training(3)
    node = victim(status)
    assert starling.type("interrupt", "r", "--node", node, "--hard").returncode == 0
    starling.wait("the replacement to train", lambda s: s["world_size"] == 3 and s["round"] > status["round"])
    result = starling.result()
    assert_same_bits(result, undisturbed)
    (recovery,) = result["recoveries"]
    assert (recovery["kind"], recovery["node"]) == ("hard", node)
    assert 0 < recovery["seconds"] < 30
    assert result["steps_redone"] <= 13 + 3, "an epoch's checkpoint and its upload bound what is done again"


@pytest.mark.parametrize("part", ["agent", "supervisor", "worker"])
def test_one_process_of_a_node_dies_alone(starling: Commands, undisturbed: str, part: str) -> None:
    starling.run()
    status = starling.wait_training(3)
    starling.kill(rank0(status), part)
    starling.wait("training to go on", lambda s: s["round"] > status["round"] and s["world_size"] == 3)
    assert_same_bits(starling.result(), undisturbed)


def test_every_node_is_killed_at_once(starling: Commands, undisturbed: str) -> None:
    starling.run()
    status = starling.wait("three nodes and a checkpoint", lambda s: all_train(s, 3) and s["checkpoint"])
    starling.interrupt_at_once([node["id"] for node in status["nodes"]])
    result = starling.result()
    assert_same_bits(result, undisturbed)
    assert result["interruptions"] == 3
    rounds = starling.events("round")
    assert any(event["data"]["source"] == "store" for event in rounds)


def test_the_controller_is_killed_and_started_again(starling: Commands, undisturbed: str) -> None:
    starling.run()
    status = starling.wait_training(3)
    starling.kill_controllers()
    lost = other(status)
    assert starling.type("interrupt", "r", "--node", lost, "--hard").returncode == 0
    starling.wait("the survivors to train on without a controller", lambda s: s["world_size"] == 2)
    assert starling.type("resume", "r", "--detach").returncode == 0
    starling.wait("the replacement", lambda s: s["world_size"] == 3)
    assert_same_bits(starling.result(), undisturbed)
    wanted = [event["subject"] for event in starling.events("node-wanted")]
    assert sorted(wanted) == sorted({"r.0.0", "r.1.0", "r.2.0", lost[:-1] + "1"}), "a node was launched twice"


def test_a_run_ends_without_any_controller(starling: Commands, undisturbed: str) -> None:
    starling.run()
    starling.wait_training(3)
    starling.kill_controllers()
    assert_same_bits(starling.result(), undisturbed)


def test_a_step_of_more_than_thirty_seconds_is_not_lost_when_a_node_joins(
    starling: Commands, undisturbed: str, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    starling.write_spec({"hold_while": str(hold)}, max=2)
    starling.run()
    status = starling.wait_training(2)
    hold.touch()
    assert starling.type("interrupt", "r", "--node", other(status), "--hard").returncode == 0
    starling.wait("the survivor to go on alone", lambda s: s["round"] > status["round"] and s["world_size"] == 1)
    began = time.monotonic()
    joining = {"id": other(status)[:-1] + "1", "state": "joining"}
    starling.wait("the replacement to be up", lambda s: any(joining.items() <= n.items() for n in s["nodes"]))
    time.sleep(max(0.0, 32 - (time.monotonic() - began)))
    rounds = len(starling.events("round"))
    hold.unlink()
    starling.wait("the replacement to train", lambda s: s["world_size"] == 2 and s["round"] > status["round"])
    joined = starling.events("round")[rounds:]
    assert [event["data"]["redone"] for event in joined] == [0], "the long step must count"
    assert_same_bits(starling.result(), undisturbed)


def test_stop_and_resume(starling: Commands, undisturbed: str) -> None:
    starling.run()
    starling.wait_training(3)
    stopped = starling.type("stop", "r")
    assert stopped.returncode in (0, 3), stopped.stderr
    result = starling.result()
    assert result["state"] == "stopped"
    starling.brake.unlink(missing_ok=True)
    resumed = starling.type("resume", "r", "-o", "nodes.max=2", "--json")
    assert resumed.returncode == 0, resumed.stderr
    result = starling.result()
    assert_same_bits(result, undisturbed)
    assert result["steps_redone"] == 0


def test_a_node_stopped_between_rounds_hands_over_what_only_its_disk_has(
    starling: Commands, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules.json"
    monkeypatch.setenv(FAULTS, str(rules))
    write_rules(rules, [FaultRule(fault=Fault.UNAVAILABLE, operation="upload", times=None)])
    starling.write_spec({}, min=2, max=2)
    starling.run()
    lost = other(starling.wait_training(2, least_step=14))
    assert starling.status()["checkpoint"] is None
    assert starling.type("interrupt", "r", "--node", lost, "--hard").returncode == 0
    write_rules(rules, [])
    assert starling.type("stop", "r").returncode == 0  # the survivor waits for a second node, and cannot train
    stopped = starling.json("result", "r")
    assert stopped["state"] == "stopped"
    assert stopped["checkpoint"]["step"] >= 13, "the first epoch was on the survivor's disk only"
    starling.brake.unlink()
    assert starling.type("resume", "r", "--detach").returncode == 0
    assert_same_bits(starling.result(), undisturbed)
