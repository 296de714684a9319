"""A node that goes between two rounds leaves nothing on its disk that the store does not have."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.journal import read_events
from starling.infra.records import EventKind
from starling.infra.store import open_store
from starling.infra.store.fault_file import FAULTS, write_rules
from starling.infra.store.faults import Fault, FaultRule
from starling.trainer.checkpoint.handover import hand_over
from starling.trainer.checkpoint.manifest import manifest_key
from starling.trainer.config import Job
from tests.support.rounds import Run, probe_spec


@pytest.fixture
def run(tmp_path: Path) -> Run:
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])
    return Run(tmp_path, str(tmp_path / "store"), probe_spec({"step_seconds": 0.005}))


def test_what_a_drain_for_newcomers_left_on_disks_is_committed_when_all_go(run: Run, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", str(tmp_path / "whole" / "store"), probe_spec())
    assert whole.train(["w"]) == [0]
    assert run.train(["a", "b"], stop_at=4, ask="join") == [0, 0]
    assert run.manifests() == [], "a drain for newcomers saves on disks only"
    store = open_store(run.store_uri)
    store.create(layout.fingerprint("r"), b"{}")  # a supervisor would have
    handed_over = hand_over(store, Job.read(run.work("b") / "job.json"))
    assert handed_over is not None
    assert handed_over >= 4
    assert hand_over(store, Job.read(run.work("a") / "job.json")) is None, "one node's copy is enough"
    assert run.train(["c"]) == [0]
    (began,) = [e for e in read_events(store, "r") if e.kind is EventKind.ROUND and e.data["round"] == 1]
    assert (began.data["source"], began.data["resume_step"]) == ("store", handed_over)
    assert run.manifests()[-1].state_sha256 == whole.manifests()[-1].state_sha256


def test_what_others_overtook_meanwhile_is_not_left_half_committed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who commits a later step removes the parts of earlier ones that nobody has committed yet."""
    assert run.train(["a", "b"], stop_at=4, ask="join") == [0, 0]
    store, prefix = open_store(run.store_uri), layout.checkpoints("r")
    store.create(layout.fingerprint("r"), b"{}")
    create = store.create

    def create_later(key: str, data: bytes) -> str:
        create(manifest_key(prefix, 999), b"a later step")
        return create(key, data)

    monkeypatch.setattr(store, "create", create_later)
    hand_over(store, Job.read(run.work("b") / "job.json"))
    assert [info.key for info in store.list(prefix)] == [manifest_key(prefix, 999)]


def test_the_beginning_of_a_round_is_told_though_rank_0_cannot(run: Run, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write_rules(rules, [FaultRule(fault=Fault.UNAVAILABLE, operation="put", key="runs/r/events/*", times=None)])
    assert run.train(["a", "b"], stop_at=3, environment={"a": {FAULTS: str(rules)}}) == [0, 0]
    assert run.train(["a", "b"], stop_at=6) == [0, 0]
    began = [event for event in read_events(open_store(run.store_uri), "r") if event.kind is EventKind.ROUND]
    assert [event.data["round"] for event in began] == [0, 1], "each round is told of once, by however many"
    assert [event.data["source"] for event in began] == ["fresh", "local"]
