"""What tasks of users' own may do to a run: real processes, real collectives, a real store."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.support.rounds import Run, probe_spec

STEPS = 8
"""64 samples, 16 a step, two epochs."""


@pytest.fixture(scope="module", autouse=True)
def _workers_import_ahead() -> None:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])


def new_run(folder: Path, task: str, **training: Any) -> Run:
    spec = probe_spec({"samples": 64}, **training)
    spec["task"]["name"] = f"tests.support.odd_tasks:{task}"
    return Run(folder, str(folder / "store"), spec)


def said(run: Run, node: str, rank: int) -> str:
    return (run.work(node) / f"failure-{rank}.json").read_text()


def failures(run: Run) -> list[str]:
    """What all ranks of the nodes a and b said."""
    return [path.read_text() for node in ("a", "b") for path in run.work(node).glob("failure-*.json")]


@pytest.mark.parametrize("task", ["StillBatchNorm", "Scratchpad"])
def test_a_run_that_is_cut_and_spread_ends_as_the_whole_one(tmp_path: Path, task: str) -> None:
    whole, cut = new_run(tmp_path / "whole", task), new_run(tmp_path / "cut", task)
    assert whole.train(["a"]) == [0]
    assert cut.train(["a"], stop_at=2) == [0]
    assert cut.train(["b", "c"], stop_at=6) == [0, 0]
    assert cut.train(["b"]) == [0]
    ends = [run.manifests()[-1] for run in (whole, cut)]
    assert [end.step for end in ends] == [STEPS, STEPS]
    assert ends[0].state_sha256 == ends[1].state_sha256


def test_a_plain_run_saves_buffers_that_are_no_part_of_the_state_dict(tmp_path: Path) -> None:
    whole, cut = (new_run(tmp_path / name, "Scratchpad", exact=False) for name in ("whole", "cut"))
    assert whole.train(["a"]) == [0]
    cut.train(["a"], stop_at=3)
    assert cut.train(["b"]) == [0]
    assert cut.manifests()[-1].state_sha256 == whole.manifests()[-1].state_sha256


def test_ranks_with_other_data_are_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path, "OtherContent")
    assert run.train(["a", "b", "c"]) == [76, 76, 76]
    assert "data_sha256() differs between rank 0 and rank 1, 2" in said(run, "b", 1)
    assert '"fatal": true' in said(run, "b", 1)
    assert not (tmp_path / "store" / "runs/r/data.json").exists(), "nothing is pinned before all agree"


def test_ranks_with_another_number_of_samples_are_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path, "OtherCount")
    assert run.train(["a", "b", "c"]) == [76, 76, 76]
    assert "val_samples() has another length on some: 61 on rank 0, 62 on rank 1, None on rank 2" in said(run, "a", 0)


@pytest.mark.parametrize("nodes", [["a"], ["a", "b"]])
@pytest.mark.parametrize("strategy", ["replicated", "fsdp"])
def test_integers_that_depend_on_the_samples_are_refused(tmp_path: Path, nodes: list[str], strategy: str) -> None:
    """With two ranks for two shards no rank can tell by itself."""
    run = new_run(tmp_path, "Counting", virtual_shards=2, strategy=strategy)
    assert 76 in run.train(nodes)
    assert any("the model's buffers (seen" in each for each in failures(run))
    assert run.manifests() == []


def test_integers_that_depend_on_the_samples_are_no_matter_to_plain_runs(tmp_path: Path) -> None:
    assert new_run(tmp_path, "Counting", exact=False).train(["a", "b"]) == [0, 0]


@pytest.mark.parametrize("exact", [True, False])
def test_an_error_of_the_users_backward_pass_is_the_users(tmp_path: Path, exact: bool) -> None:
    run = new_run(tmp_path, "BrokenBackward", exact=exact)
    assert 76 in run.train(["a", "b"])
    assert all("modified by an inplace operation" in each and "in backward" in each for each in failures(run))


@pytest.mark.parametrize("nodes", [["a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("training", [{"exact": False}, {"exact": False, "strategy": "fsdp"}, {}])
def test_a_peer_that_dies_in_the_midst_of_a_step_is_lost(
    tmp_path: Path, nodes: list[str], training: dict[str, Any]
) -> None:
    run = new_run(tmp_path, "DiesInForward", **training)
    assert run.train(nodes) == [75, -9, 75][: len(nodes)]
