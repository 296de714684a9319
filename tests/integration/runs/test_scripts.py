"""Scripts that know nothing of us survive what happens to their nodes: torch alone, Lightning, Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs.commands import Commands
from tests.integration.runs.scripts import ScriptRun, example

SCRIPT_PATIENCE = 300.0
"""These take their own time between steps, and import much at each start."""
MENDED = Path(__file__).parents[2] / "support" / "mended_torchvision"


def rank0(status: dict[str, Any]) -> str:
    (node,) = (n["id"] for n in status["nodes"] if n["state"] == "training" and n["rank"] == 0)
    return str(node)


def test_a_plain_script_on_two_nodes_survives_a_notice_and_the_loss_of_its_rank_0(starling: Commands) -> None:
    run = "plain.py --steps 600 --save-every 20 --slow 0.15 --out out"
    script = ScriptRun(starling, example(starling, "plain.py"), run, nodes=2)
    starling.run()
    status = script.wait_snapshot(1, world_size=2)
    leaving = rank0(status)
    assert starling.type("interrupt", "r", "--node", leaving, "--notice", "30").returncode == 0
    status = script.wait_snapshot(status["snapshot"]["number"] + 1, world_size=2, least_round=status["round"] + 1)
    killed = rank0(status)
    assert killed != leaving
    assert starling.type("interrupt", "r", "--node", killed, "--hard").returncode == 0
    starling.wait("rank 0 to be gone", lambda s: not any(n["id"] == killed and n["pids"] for n in s["nodes"]))
    result = starling.result(seconds=SCRIPT_PATIENCE)
    assert result["state"] == "done", result
    assert result["interruptions"] == 2
    assert {recovery["kind"] for recovery in result["recoveries"]} == {"notice", "hard"}
    starts = script.starts()
    steps = [start["step"] for start in starts]
    assert steps[0] == 0
    assert len(steps) >= 3
    assert steps == sorted(steps)
    assert all(step > 0 and step % 20 == 0 for step in steps[1:]), steps
    assert (script.saved() / "step-000600.pt").exists()
    assert not script.failures(), "the loss of a peer is no failure of the script"


def test_lightning_resumes_where_it_was_saved(starling: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(MENDED))
    script = ScriptRun(
        starling, example(starling, "lightning_fit.py"), "lightning_fit.py --epochs 30 --slow 0.3 --out out"
    )
    starling.run()
    status = script.wait_snapshot(2)
    assert starling.type("interrupt", "r", "--node", rank0(status), "--notice", "30").returncode == 0
    # Once the brake is off the script ends within the second in which it is asked to leave.
    starling.wait("the next round", lambda s: s["round"] > status["round"])
    result = starling.result(seconds=SCRIPT_PATIENCE)
    assert result["state"] == "done", starling.type("logs", "r").stdout
    began = printed(starling, "training starts at epoch")
    assert began[0] == "training starts at epoch 0, step 0"
    assert len(began) == 2, began
    assert 8 <= int(began[1].rpartition(" ")[2]) < 240
    assert printed(starling, "finished at epoch") == ["finished at epoch 30, step 240"]
    assert (script.saved() / "last.ckpt").exists()
    assert not script.failures()


def test_the_hugging_face_trainer_resumes_where_it_had_saved(
    starling: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(MENDED))
    script = ScriptRun(starling, example(starling, "hf_trainer.py"), "hf_trainer.py --steps 300 --slow 0.2 --out out")
    starling.run()
    status = script.wait_snapshot(1)
    assert starling.type("interrupt", "r", "--node", rank0(status), "--hard").returncode == 0
    result = starling.result(seconds=SCRIPT_PATIENCE)
    assert result["state"] == "done", starling.type("logs", "r").stdout
    began = printed(starling, "training starts at step")
    assert began[0] == "training starts at step 0"
    assert len(began) == 2, began
    resumed = int(began[1].rpartition(" ")[2])
    assert 20 <= resumed < 300
    assert resumed % 20 == 0
    assert printed(starling, "finished at step") == ["finished at step 300"]
    assert (script.saved() / "model.safetensors").exists()


def printed(starling: Commands, beginning: str) -> list[str]:
    """Lines of all nodes' logs that begin like this, in order of time."""
    return [line for line in starling.type("logs", "r").stdout.splitlines() if line.startswith(beginning)]
