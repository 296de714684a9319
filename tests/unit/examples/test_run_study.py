"""The studies that ship: every variant is a spec, and the table says what the runs said."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.studies.run_study import Study, spread, table
from starling.orchestrator.loading import load_spec

STUDIES = sorted((Path(__file__).parents[3] / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_is_a_spec_of_its_own(path: Path) -> None:
    study = Study.read(path)
    resolved = [load_spec(study.spec, overrides).resolved() for overrides in study.variants.values()]
    assert len(resolved) >= 2
    assert all(each not in resolved[:number] for number, each in enumerate(resolved))
    names = {study.run_name(variant, seed) for variant in study.variants for seed in study.seeds}
    assert len(names) == len(study.variants) * len(study.seeds)


def test_there_are_studies() -> None:
    assert {path.stem for path in STUDIES} >= {"transfer-learning", "julia-mxnet"}


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("spec: a.yaml\nseed: [1]\n")
    with pytest.raises(SystemExit, match="the keys are spec, seeds, metrics and variants, not spec, seed"):
        Study.read(tmp_path / "study.yaml")


def test_the_table_shows_means_and_spread() -> None:
    found = {"a": [{"kappa": 0.5, "auc": 1.0}, {"kappa": 0.7, "auc": 1.0}], "b": [{"kappa": 0.1}]}
    assert table(found, ["kappa", "auc"]).splitlines() == [
        "|  | kappa | auc | runs |",
        "| --- | --- | --- | --- |",
        "| a | 0.600 ± 0.141 | 1.000 ± 0.000 | 2 |",
        "| b | 0.100 | - | 1 |",
    ]
    assert spread([]) == "-"
