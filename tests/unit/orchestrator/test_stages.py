"""A spec and what it needs become runs: in order, once each, and none before all of it is known to be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from starling.infra import layout
from starling.infra.errors import UsageError
from starling.infra.records import RunState, Verdict
from starling.infra.store import Store
from starling.orchestrator.changes import changed_spec
from starling.orchestrator.reading import list_runs, read_spec
from starling.orchestrator.runs import create_run, resume_run
from starling.orchestrator.stages import check_named_runs, create_stages, load_stages, runs_to_control
from tests.support.specs import plain_spec, spec


def write(folder: Path, name: str, **sections: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plain_spec(name=path.stem, **sections), sort_keys=False))
    return path


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    write(tmp_path, "parts/low")
    write(tmp_path, "parts/lesions")
    write(tmp_path, "parts/high", needs={"low_res": "low.yaml"})
    return write(tmp_path, "fused", needs={"main": "parts/high.yaml", "lesions": "parts/lesions.yaml"})


def over(store: Store, run: str, state: RunState) -> None:
    verdict = Verdict(state=state, at=0, by="test", reason="because")
    store.create(layout.verdict(run, 0), verdict.to_bytes())


def test_what_is_needed_comes_first(fused: Path) -> None:
    stages = load_stages(fused, [])
    assert [stage.title for stage in stages] == ["main.low_res", "main", "lesions", ""]
    assert [stage.spec.name for stage in stages] == ["low", "high", "lesions", "fused"]


def test_overrides_are_the_specs_own_and_the_provider_is_everybodys(fused: Path) -> None:
    stages = load_stages(fused, ["training.epochs=9"])
    assert [stage.spec.training.epochs for stage in stages if stage.spec.training] == [2, 2, 2, 9]
    on_aws = load_stages(fused, [], "aws")
    assert {stage.spec.provider.name for stage in on_aws} == {"aws"}


def test_runs_are_named_by_their_way_and_bound_to_each_other(fused: Path, folder_store: Store) -> None:
    ids = create_stages(folder_store, load_stages(fused, []), name="r")
    assert ids == ["r-main-low-res", "r-main", "r-lesions", "r"]
    assert read_spec(folder_store, "r", 0).needs == {"main": "r-main", "lesions": "r-lesions"}
    assert read_spec(folder_store, "r-main", 0).needs == {"low_res": "r-main-low-res"}
    assert runs_to_control(folder_store, "r") == ids
    assert runs_to_control(folder_store, "r-lesions") == ["r-lesions"]


def test_what_is_over_needs_no_controller_but_the_asked_for_run_gets_one(fused: Path, folder_store: Store) -> None:
    create_stages(folder_store, load_stages(fused, []), name="r")
    over(folder_store, "r-main-low-res", RunState.DONE)
    over(folder_store, "r-lesions", RunState.DONE)
    assert runs_to_control(folder_store, "r") == ["r-main", "r"]
    over(folder_store, "r", RunState.DONE)
    assert runs_to_control(folder_store, "r") == ["r-main", "r"]


def test_a_spec_that_is_needed_twice_is_one_run(tmp_path: Path, folder_store: Store) -> None:
    write(tmp_path, "low")
    write(tmp_path, "high", needs={"low": "low.yaml"})
    top = write(tmp_path, "top", needs={"high": "high.yaml", "also": "./low.yaml"})
    assert create_stages(folder_store, load_stages(top, []), name="r") == ["r-high-low", "r-high", "r"]
    assert read_spec(folder_store, "r", 0).needs == {"high": "r-high", "also": "r-high-low"}


def test_an_override_may_put_a_run_in_place_of_a_file(fused: Path, folder_store: Store) -> None:
    create_run(folder_store, spec(), name="done-before")
    stages = load_stages(fused, ["needs.main=done-before"])
    check_named_runs(folder_store, stages)
    assert create_stages(folder_store, stages, name="r") == ["r-lesions", "r"]
    assert read_spec(folder_store, "r", 0).needs == {"main": "done-before", "lesions": "r-lesions"}


def test_named_runs_must_be_there_and_not_be_lost(fused: Path, folder_store: Store) -> None:
    create_run(folder_store, spec(), name="lost")
    over(folder_store, "lost", RunState.FAILED)
    with pytest.raises(UsageError, match=r"needs\.main: run lost .* is failed: because; resume it first"):
        check_named_runs(folder_store, load_stages(fused, ["needs.main=lost"]))
    with pytest.raises(UsageError, match=r"there is no run other .*lost"):
        check_named_runs(folder_store, load_stages(fused, ["needs.main=other"]))


def test_a_circle_is_refused_with_the_whole_way_round(tmp_path: Path) -> None:
    write(tmp_path, "b", needs={"next": "c.yaml"})
    write(tmp_path, "c", needs={"next": "a.yaml"})
    top = write(tmp_path, "a", needs={"next": "b.yaml"})
    with pytest.raises(UsageError, match=r"a\.yaml -> \S*b\.yaml -> \S*c\.yaml -> \S*a\.yaml goes round in a circle"):
        load_stages(top, [])


def test_a_missing_file_is_refused_with_the_way_to_it(tmp_path: Path, fused: Path) -> None:
    (tmp_path / "parts/low.yaml").unlink()
    with pytest.raises(UsageError, match=r"needs\.low_res: there is no spec file .*fused\.yaml -> .*high\.yaml"):
        load_stages(fused, [])


@pytest.mark.parametrize("created", [0, 1, 2, 3])
def test_cut_off_between_two_runs_and_called_again_nothing_is_doubled(
    fused: Path, folder_store: Store, created: int
) -> None:
    stages = load_stages(fused, [])
    whole = create_stages(folder_store, stages, name="r")
    for run in whole[created:]:
        folder_store.delete(layout.run_record(run))
    assert list_runs(folder_store) == sorted(whole[:created])
    assert create_stages(folder_store, stages, name="r") == whole
    assert list_runs(folder_store) == sorted(whole)


def test_called_again_when_all_is_there_it_points_to_resume(fused: Path, folder_store: Store) -> None:
    create_stages(folder_store, load_stages(fused, []), name="r")
    with pytest.raises(UsageError, match="starling resume r"):
        create_stages(folder_store, load_stages(fused, []), name="r")


def test_a_name_that_another_run_has_is_refused_before_anything_is_written(fused: Path, folder_store: Store) -> None:
    create_run(folder_store, spec(nodes={"max": 1}), name="r-lesions")
    with pytest.raises(UsageError, match=r"there is a run r-lesions already .* another spec"):
        create_stages(folder_store, load_stages(fused, []), name="r")
    assert list_runs(folder_store) == ["r-lesions"]


def test_a_stage_that_was_lost_before_is_not_waited_for(fused: Path, folder_store: Store) -> None:
    ids = create_stages(folder_store, load_stages(fused, []), name="r")
    folder_store.delete(layout.run_record("r"))
    over(folder_store, ids[0], RunState.STOPPED)
    with pytest.raises(UsageError, match="`starling resume r-main-low-res` first"):
        create_stages(folder_store, load_stages(fused, []), name="r")


def test_names_that_get_too_long_are_refused_before_anything_is_written(fused: Path, folder_store: Store) -> None:
    with pytest.raises(UsageError, match="up to 60"):
        create_stages(folder_store, load_stages(fused, []), name="r" * 55)
    assert list_runs(folder_store) == []


def test_needs_that_would_be_called_alike_are_refused(tmp_path: Path, folder_store: Store) -> None:
    write(tmp_path, "x")
    write(tmp_path, "y")
    write(tmp_path, "mid", needs={"b": "x.yaml"})
    top = write(tmp_path, "top", needs={"a": "mid.yaml", "a_b": "y.yaml"})
    with pytest.raises(UsageError, match="called alike"):
        create_stages(folder_store, load_stages(top, []), name="r")


def test_a_resumed_run_keeps_the_runs_it_was_made_with(fused: Path, folder_store: Store) -> None:
    create_stages(folder_store, load_stages(fused, []), name="r")
    before = read_spec(folder_store, "r", 0)
    assert changed_spec(before, "r", ["nodes.max=1"], fused).needs == before.needs
    for overrides in (["needs.main=other"], ["needs.more=other"]):
        with pytest.raises(UsageError, match=r"may not change|may change"):
            changed_spec(before, "r", overrides, fused)
        with pytest.raises(UsageError, match="may change"):
            resume_run(folder_store, "r", overrides)


def test_weights_of_a_need_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no need is called 'low'"):
        spec(model={"name": "small-cnn", "weights": "needs:low"})
    assert spec(model={"name": "small-cnn", "weights": "needs:low"}, needs={"low": "low.yaml"}).needs
