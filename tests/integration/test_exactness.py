"""Equal bits at every world size and over every change of it: real processes, real collectives, a real store."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.support.rounds import Run, probe_spec

STEPS = 26


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])


@pytest.fixture(scope="module")
def references() -> dict[str, str]:
    """state SHA-256 of undisturbed runs on one node, by precision; filled by `reference`."""
    return {}


def reference(known: dict[str, str], folder: Path, precision: str) -> str:
    if precision not in known:
        run = Run(folder / "reference", str(folder / "reference-store"), probe_spec(precision=precision))
        assert run.train(["a"]) == [0]
        known[precision] = run.manifests()[-1].state_sha256
    return known[precision]


def final(run: Run) -> Any:
    manifest = run.manifests()[-1]
    assert manifest.step == STEPS
    return manifest


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("nodes", "ranks"), [(2, 1), (3, 1), (1, 4), (4, 1)])
def test_every_world_size_ends_with_the_same_state(
    tmp_path: Path, references: dict[str, str], nodes: int, ranks: int, precision: str
) -> None:
    expected = reference(references, tmp_path, precision)
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec(ranks=ranks, precision=precision))
    assert set(run.train([f"n{index}" for index in range(nodes)])) == {0}
    assert final(run).state_sha256 == expected


def test_the_hash_tells_runs_apart(tmp_path: Path, references: dict[str, str]) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec(seed=4))
    run.train(["a"])
    assert final(run).state_sha256 != reference(references, tmp_path, "fp32")


def test_one_rank_then_four_ranks_then_four_nodes(tmp_path: Path, references: dict[str, str]) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.002}))
    run.train(["a"], stop_at=6)
    run.spec["nodes"]["ranks_per_node"] = 4
    run.train(["a"], stop_at=15)
    run.spec["nodes"]["ranks_per_node"] = 1
    run.train(["a", "b", "c", "d"])
    steps = [manifest.step for manifest in run.manifests()]
    assert len(steps) >= 3, f"both stops must have committed a checkpoint, but there are only {steps}"
    # step_seconds is not part of the state; the bits must be those of the reference without it
    assert final(run).state_sha256 == reference(references, tmp_path, "fp32")


def test_a_killed_rank_costs_nothing_but_time(tmp_path: Path, references: dict[str, str]) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.005}))
    codes = run.train(["a", "b", "c"], kill_at=17)
    assert codes == [-9, 75, 75], "the killed rank's peers must end by themselves, saying that a peer was lost"
    run.train(["b", "c", "d"])
    assert final(run).state_sha256 == reference(references, tmp_path, "fp32")


def test_a_newcomer_gets_the_state_from_a_survivor(tmp_path: Path, references: dict[str, str]) -> None:
    """The store is behind what the survivor holds: the survivor's copy must win."""
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.002}))
    run.train(["a"], stop_at=8)
    for manifest in run.manifests():
        (tmp_path / "store" / f"runs/r/checkpoints/{manifest.step:010d}/manifest.json").unlink()
    assert not run.manifests()
    run.train(["new", "a"])
    assert final(run).state_sha256 == reference(references, tmp_path, "fp32")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, references: dict[str, str], damage: str) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.002}))
    run.train(["a", "b"], stop_at=20)
    newest, before = run.manifests()[-1], run.manifests()[-2]
    part = tmp_path / "store" / newest.parts[1].key
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data if damage == "flip" else data[:-5])
    if damage == "remove":
        part.unlink()
    run.train(["c"])
    assert final(run).state_sha256 == reference(references, tmp_path, "fp32")
    events = (tmp_path / "store" / "runs/r/events").iterdir()
    skipped = [event for event in events if "checkpoint-skipped" in event.read_text()]
    assert len(skipped) == 1
    assert f'"step":{newest.step}' in skipped[0].read_text().replace(" ", "")
    assert before.step < newest.step


def test_a_plain_run_resumes_at_the_same_world_size(tmp_path: Path) -> None:
    undisturbed = Run(tmp_path / "u", str(tmp_path / "u-store"), probe_spec(exact=False))
    undisturbed.train(["a", "b"])
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.005}, exact=False))
    run.train(["a", "b"], stop_at=9)
    run.train(["a", "b"])
    assert not final(run).exact
    assert final(run).weights_sha256 == final(undisturbed).weights_sha256


def test_a_plain_run_of_many_nodes_can_load_what_it_saved(tmp_path: Path) -> None:
    """Four nodes each upload a share, running statistics are split over them, and an epoch's tail leaves two without
    samples: the state must be one state all the same."""
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.005}, exact=False))
    run.train(["a", "b", "c", "d"], stop_at=9)
    run.train(["e", "f", "g", "h"])
    assert final(run).step == STEPS
    rounds = [event.read_text() for event in (tmp_path / "store" / "runs/r/events").iterdir()]
    assert not any("checkpoint-skipped" in event for event in rounds)


def test_an_operation_without_deterministic_kernel_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"op": "max_unpool"}))
    assert run.train(["a"]) == [76]
    failure = (run.work("a") / "failure-0.json").read_text()
    assert "max_unpooling" in failure
    assert "training.exact: false" in failure
    assert '"fatal": true' in failure


@pytest.mark.parametrize("mistake", ["mean", "column"])
def test_losses_that_are_not_one_number_a_sample_are_refused(tmp_path: Path, mistake: str) -> None:
    run = Run(tmp_path, str(tmp_path / "store"), probe_spec({"mistake": mistake}))
    assert run.train(["a"]) == [76]
    failure = (run.work("a") / "failure-0.json").read_text()
    assert "one number a sample" in failure
