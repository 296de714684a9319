"""docs/performance.md is what the benchmarks' results say, and nothing written by hand."""

from __future__ import annotations

from benchmarks.__main__ import NAMES, PAGE, RESULTS, rendered


def test_page_is_made_from_the_results() -> None:
    assert PAGE.read_text() == rendered()


def test_every_benchmark_has_a_result() -> None:
    assert sorted(path.stem for path in RESULTS.glob("*.json")) == sorted(NAMES)
