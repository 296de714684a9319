"""Creating, stopping and resuming runs on a real store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.infra import layout
from starling.infra.clock import FakeClock
from starling.infra.errors import UsageError
from starling.infra.journal import read_events
from starling.infra.records import EventKind, RunRecord, RunState, Verdict
from starling.infra.store import Store
from starling.infra.store.folder import FolderStore
from starling.orchestrator.reading import list_runs, read_spec
from starling.orchestrator.runs import create_run, request_stop, resume_run
from tests.support.specs import plain_spec, spec


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def end(store: Store, run: str, state: RunState, incarnation: int = 0) -> None:
    verdict = Verdict(state=state, at=1.0, by="test", reason="test")
    store.create(layout.verdict(run, incarnation), verdict.to_bytes())


def read_record(store: Store) -> RunRecord:
    return RunRecord.from_bytes(store.get(layout.run_record("mine")).data)


def test_a_run_is_named_after_its_spec_and_the_day(folder_store: Store, clock: FakeClock) -> None:
    record = create_run(folder_store, spec(), clock=clock)
    assert record.run.startswith("small-700112-")
    assert list_runs(folder_store) == [record.run]
    assert yaml.safe_load(folder_store.get(layout.spec(record.run, 0)).data) == spec().resolved()
    assert [event.kind for event in read_events(folder_store, record.run)] == [EventKind.RUN_CREATED]


@pytest.mark.parametrize("name", ["a.b", "A", "", "a/b", "x" * 61, "-x"])
def test_names_that_cannot_be_keys_are_refused(folder_store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        create_run(folder_store, spec(), name=name)


def test_a_taken_name_is_refused(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    with pytest.raises(UsageError, match="there is a run mine already"):
        create_run(folder_store, spec(nodes={"max": 1}), name="mine")
    assert read_spec(folder_store, "mine", 0).nodes.max == 3


def test_of_many_who_create_one_name_one_wins_with_its_own_spec(folder_store: Store) -> None:
    def create(number: int) -> int | None:
        try:
            create_run(folder_store, spec(nodes={"max": number}), name="mine")
        except UsageError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(create, range(1, 9)) if number is not None]
    assert len(won) == 1
    assert read_spec(folder_store, "mine", 0).nodes.max == won[0]


def test_code_is_packed_before_the_run_exists(folder_store: Store, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "task.py").write_text("pass")
    record = create_run(folder_store, spec(task="task:Mine", code="code"), name="mine", code=tmp_path / "code")
    assert record.code_sha256 is not None
    folder_store.stat(layout.code(record.code_sha256))


def test_stopping_twice_is_stopping_once(folder_store: Store, clock: FakeClock) -> None:
    create_run(folder_store, spec(), name="mine", clock=clock)
    first = request_stop(folder_store, "mine", "one", clock)
    second = request_stop(folder_store, "mine", "two", clock)
    assert first.stop == second.stop
    assert first.stop is not None
    assert first.stop.reason == "one"
    kinds = [event.kind for event in read_events(folder_store, "mine")]
    assert kinds.count(EventKind.STOP_REQUESTED) == 1


def test_a_run_that_is_over_is_not_stopped(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    end(folder_store, "mine", RunState.DONE)
    assert request_stop(folder_store, "mine", "late").stop is None


def test_a_stop_for_an_earlier_incarnation_does_not_stop_this_one(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    end(folder_store, "mine", RunState.STOPPED)
    resume_run(folder_store, "mine", [])
    assert request_stop(folder_store, "mine", "limit", incarnation=0).stop is None


def test_resuming_makes_a_new_incarnation_with_changed_values(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    request_stop(folder_store, "mine", "pause")
    end(folder_store, "mine", RunState.STOPPED)
    record = resume_run(folder_store, "mine", ["nodes.max=2", "limits.budget=5", "checkpoint.keep=1"])
    assert (record.incarnation, record.stop) == (1, None)
    now = read_spec(folder_store, "mine", 1)
    assert (now.nodes.max, now.limits.budget, now.checkpoint.keep) == (2, 5, 1)
    assert read_spec(folder_store, "mine", 0).nodes.max == 3


def test_a_run_that_is_not_over_or_is_done_stays_as_it_is(folder_store: Store) -> None:
    created = create_run(folder_store, spec(), name="mine")
    assert resume_run(folder_store, "mine", []) == created
    with pytest.raises(UsageError, match="not over"):
        resume_run(folder_store, "mine", ["nodes.max=2"])
    end(folder_store, "mine", RunState.DONE)
    assert resume_run(folder_store, "mine", []).incarnation == 0


@pytest.mark.parametrize("override", ["training.epochs=9", "model=small-cnn", "data.dataset=x", "name=y", "task=a:B"])
def test_what_a_run_computes_cannot_change(folder_store: Store, override: str) -> None:
    create_run(folder_store, spec(), name="mine")
    end(folder_store, "mine", RunState.FAILED)
    with pytest.raises(UsageError, match=r"only nodes\.\*, limits\.\*"):
        resume_run(folder_store, "mine", [override])


def test_a_resume_that_died_halfway_does_not_block_the_next(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    end(folder_store, "mine", RunState.FAILED)
    folder_store.create(layout.spec("mine", 1), b"other: values\n")
    assert resume_run(folder_store, "mine", []).incarnation == 2


def test_of_two_who_resume_with_other_values_one_is_told(folder_store: Store) -> None:
    """The other has everything checked and its spec written when the first one's resume takes effect."""
    create_run(folder_store, spec(), name="mine")
    end(folder_store, "mine", RunState.STOPPED)

    class Overtaken(FolderStore):
        def replace(self, key: str, data: bytes, version: str) -> str:
            if key == layout.run_record("mine") and read_record(folder_store).incarnation == 0:
                assert resume_run(folder_store, "mine", ["nodes.max=2"]).incarnation == 2
            return super().replace(key, data, version)

    with pytest.raises(UsageError, match=r"resumed by somebody else .*nodes\.max: 3 -> 1"):
        resume_run(Overtaken(Path(folder_store.uri)), "mine", ["nodes.max=1"])
    assert read_spec(folder_store, "mine", read_record(folder_store).incarnation).nodes.max == 2


def test_a_limit_that_would_stop_it_at_once_is_told(folder_store: Store, clock: FakeClock) -> None:
    create_run(folder_store, spec(limits={"max_duration": 100}), name="mine", clock=clock)
    end(folder_store, "mine", RunState.STOPPED)
    clock.advance(200)
    with pytest.raises(UsageError, match=r"stopped again at once: .*limits\.max_duration"):
        resume_run(folder_store, "mine", [], clock)
    assert resume_run(folder_store, "mine", ["limits.max_duration=10h"], clock).incarnation == 1


def test_ranks_follow_the_number_of_gpus(folder_store: Store) -> None:
    create_run(folder_store, spec(nodes={"max": 1}), name="mine")
    end(folder_store, "mine", RunState.STOPPED)
    resume_run(folder_store, "mine", ["nodes.gpus_per_node=4"])
    assert read_spec(folder_store, "mine", 1).nodes.ranks == 4


def spec_file(folder: Path, **sections: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(plain_spec(**sections)))
    return path


def stopped_run(store: Store) -> None:
    create_run(store, spec(nodes={"max": 1}), name="mine")
    end(store, "mine", RunState.STOPPED)


def test_a_run_is_moved_to_other_machines_by_editing_its_file(folder_store: Store, tmp_path: Path) -> None:
    stopped_run(folder_store)
    hosts = {"name": "ssh", "hosts": [{"address": "big", "gpus": 4}, {"address": "bigger", "gpus": 8}]}
    moved = spec_file(
        tmp_path, nodes={"max": 2, "gpus_per_node": 4}, provider=hosts, limits={"budget": 3}, setup=["nvidia-smi"]
    )
    record = resume_run(folder_store, "mine", ["limits.budget=5"], spec_file=moved)
    now = read_spec(folder_store, "mine", 1)
    assert (now.nodes.max, now.nodes.ranks, now.provider.name, now.setup) == (2, 4, "ssh", ["nvidia-smi"])
    assert now.limits.budget == 5
    assert now.training == spec().training
    assert record.resumed_at is not None
    told = read_events(folder_store, "mine")[-1].data["changes"]
    assert {"nodes.max: 1 -> 2", "nodes.ranks_per_node: 1 -> 4", "limits.budget: None -> 5.0"} <= set(told)


def test_a_file_that_computes_something_else_is_refused_with_both_values(folder_store: Store, tmp_path: Path) -> None:
    stopped_run(folder_store)
    training = {"epochs": 7, "global_batch": 128, "optimizer": {"name": "sgd", "lr": 0.1}}
    other = spec_file(tmp_path, nodes={"max": 2}, training=training)
    with pytest.raises(UsageError) as refusal:
        resume_run(folder_store, "mine", [], spec_file=other)
    told = str(refusal.value)
    assert "training.epochs: 2 -> 7 since run mine was created" in told
    assert "training.global_batch: 64 -> 128" in told
    assert "nodes.max" not in told
    back = ["training.epochs=2", "training.global_batch=64"]
    assert resume_run(folder_store, "mine", back, spec_file=other).incarnation == 1


def test_the_same_file_changes_nothing(folder_store: Store, tmp_path: Path) -> None:
    create_run(folder_store, spec(nodes={"max": 1}), name="mine")
    same = spec_file(tmp_path, nodes={"max": 1})
    assert resume_run(folder_store, "mine", [], spec_file=same).incarnation == 0
    with pytest.raises(UsageError, match="not over"):
        resume_run(folder_store, "mine", ["nodes.max=2"], spec_file=same)


def test_a_run_in_a_folder_cannot_be_moved_to_machines_that_do_not_reach_it(folder_store: Store) -> None:
    stopped_run(folder_store)
    with pytest.raises(UsageError, match="nodes on AWS cannot reach the folder"):
        resume_run(folder_store, "mine", ["provider={name: aws}"])


def test_an_unknown_run_names_those_there_are(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    with pytest.raises(UsageError, match=r"there is no run yours .*there are: mine"):
        request_stop(folder_store, "yours", "x")
