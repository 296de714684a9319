"""An evaluation as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from starling.trainer.judging.evaluation import Evaluation, Metric, Sorting

UNBOUNDED = 1000
"""Columns of a file or a pipe: nothing is cut off there."""


def print_evaluation(evaluation: Evaluation) -> None:
    """On stdout."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = UNBOUNDED
    data, how = evaluation.dataset, evaluation.bootstrap
    people = f" of {data.patients} patients" if data.patients is not None else ""
    name = data.name or "the task's own data"
    console.print(
        f"{evaluation.run} at step {evaluation.step} (epoch {evaluation.epoch}) on split {data.split} of {name}: "
        f"{data.samples} samples{people}",
        markup=False,
    )
    console.print(_metrics(evaluation))
    if how.resamples:
        console.print(
            f"range: {how.confidence:.0%} bootstrap interval, {how.resamples} resamples of {how.unit}s, seed {how.seed}"
        )
    if evaluation.recorded is not None:
        console.print(
            "the run itself measured the same, to the last bit"
            if evaluation.recorded.equal
            else "the run itself measured: " + _listed(evaluation.recorded.metrics),
            markup=False,
        )
    if evaluation.sorting is not None:
        console.print(_classes(evaluation.sorting))
        console.print(_confusion(evaluation.sorting))


def _metrics(evaluation: Evaluation) -> Table:

    table = _table("metric", "value", "range")
    for name, metric in evaluation.metrics.items():
        table.add_row(Text(name), _number(metric.value), _range(metric))
    if evaluation.sorting is not None:
        for roc in evaluation.sorting.rocs:
            table.add_row(Text(f"auc of {roc.name}"), _number(roc.auc.value), _range(roc.auc))
    return table


def _classes(sorting: Sorting) -> Table:
    table = _table("class", "samples", "sorted into it", "precision", "recall", "F1")
    for each in sorting.classes:
        numbers = (_number(each.precision), _number(each.recall), _number(each.f1))
        table.add_row(Text(each.name), str(each.support), str(each.predicted), *numbers)
    return table


def _confusion(sorting: Sorting) -> Table:
    """The right ones are bold."""
    table = _table("true class \\ said", *(each.name for each in sorting.classes))
    for number, (each, row) in enumerate(zip(sorting.classes, sorting.confusion, strict=True)):
        cells = [Text(str(count), style="bold" if column == number else "") for column, count in enumerate(row)]
        table.add_row(Text(each.name), *cells)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", header_style="dim")
    table.add_column(Text(first))
    for name in others:
        table.add_column(Text(name), justify="right")
    return table


def _range(metric: Metric) -> str:
    return f"{metric.low:.4f} to {metric.high:.4f}" if metric.low is not None and metric.high is not None else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _listed(metrics: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'-' if value is None else f'{value:.6g}'}" for name, value in metrics.items())
