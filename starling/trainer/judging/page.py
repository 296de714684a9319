"""An evaluation as one HTML file that needs nothing but itself: no script, no font, no address is ever asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape

from starling.trainer.judging.charts import count_chart, reliability_chart, roc_chart
from starling.trainer.judging.evaluation import ClassScores, Evaluation, Metric, Mistake, Sorting
from starling.trainer.judging.style import STYLE

HEADLINES = 4
"""Metrics that are shown large."""
TELLING = ("kappa", "auc", "accuracy", "cross_entropy", "sensitivity", "specificity")
"""What people look for first, in order."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing."""


def page(evaluation: Evaluation, thumbnails: Mapping[int, bytes]) -> str:
    """`thumbnails`: number of a sample -> a small JPEG."""
    title = f"Evaluation of {evaluation.run}, step {evaluation.step}, on {_data_name(evaluation)}"
    sections = [_metrics(evaluation)]
    if (sorting := evaluation.sorting) is not None:
        sections += [
            _section("Classes", _classes(sorting)),
            _section("Confusion", _confusion(sorting)),
            _section("Receiver operating characteristic", _rocs(sorting)),
            _section("Calibration", _calibration(sorting)),
            _section("Worst mistakes", _mistakes(sorting, thumbnails)),
        ]
    sections.append(_section("Where this comes from", _origin(evaluation)))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_head(evaluation)}\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def _head(evaluation: Evaluation) -> str:
    data = evaluation.dataset
    people = f" of {data.patients:,} patients" if data.patients is not None else ""
    ranked = sorted(evaluation.metrics.items(), key=lambda item: TELLING.index(item[0]) if item[0] in TELLING else 99)
    first = ranked[:HEADLINES]
    headline = "".join(
        f"<li><span>{escape(_spoken(name))}</span><b>{_number(metric.value)}</b><span>{_range(metric)}</span></li>"
        for name, metric in first
    )
    return (
        f"<h1>Evaluation of {escape(evaluation.run)}</h1>\n"
        f'<p class="quiet">Step {evaluation.step:,} (epoch {evaluation.epoch}) on split {escape(data.split)} of '
        f"{escape(data.name or 'its own data')}: {data.samples:,} samples{people}.</p>\n"
        f'<ul class="headline">{headline}</ul>'
    )


def _metrics(evaluation: Evaluation) -> str:
    how = evaluation.bootstrap
    rows = [[_spoken(name), _number(metric.value), _range(metric)] for name, metric in _with_f1(evaluation).items()]
    explained = (
        f'<p class="note">Ranges are {how.confidence:.0%} percentile bootstrap intervals: {how.resamples:,} '
        f"resamples of {how.unit}s, seed {how.seed}. They tell how much the numbers would vary with other "
        f"{how.unit}s, not with another training.</p>"
        if how.resamples
        else ""
    )
    return _section("Metrics", _table("", ["metric", "value", "range"], rows) + explained + _comparison(evaluation))


def _comparison(evaluation: Evaluation) -> str:
    recorded = evaluation.recorded
    if recorded is None:
        return ""
    if recorded.equal:
        return '<p class="note">The run itself measured the same at this step, to the last bit.</p>'
    was = ", ".join(f"{_spoken(name)} {_exact(value)}" for name, value in recorded.metrics.items())
    return f'<p class="note">The run itself measured at this step, on its own machine: {escape(was)}.</p>'


def _with_f1(evaluation: Evaluation) -> dict[str, Metric]:
    more = {"macro_f1": Metric(value=evaluation.sorting.macro_f1)} if evaluation.sorting is not None else {}
    return evaluation.metrics | more


def _classes(sorting: Sorting) -> str:
    rows = [
        [
            each.name,
            f"{each.support:,}",
            f"{each.predicted:,}",
            _number(each.precision),
            _number(each.recall),
            _number(each.f1),
        ]
        for each in sorting.classes
    ]
    head = ["class", "samples", "sorted into it", "precision", "recall", "F1"]
    table = _table("Each class against the rest", head, rows)
    return f'<div class="pair">{table}{count_chart(sorting.classes, "Samples of each class")}</div>'


def _confusion(sorting: Sorting) -> str:
    names = [each.name for each in sorting.classes]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(each.name)}</th>{_cells(number, row, each)}</tr>'
        for number, (each, row) in enumerate(zip(sorting.classes, sorting.confusion, strict=True))
    )
    return (
        '<div class="scroll"><table class="confusion"><caption>Rows are the true classes, columns what the model said; '
        "counts, and shares of the row</caption>"
        f'<thead><tr><th scope="col">true class</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(number: int, row: list[int], each: ClassScores) -> str:
    shares = [count / each.support if each.support else 0.0 for count in row]
    return "".join(
        f'<td class="{"hit" if column == number else "none" if not count else "miss"}" style="--share:{share:.3f}">'
        f"{count:,}{f'<small>{share:.0%}</small>' if count else ''}</td>"
        for column, (count, share) in enumerate(zip(row, shares, strict=True))
    )


def _rocs(sorting: Sorting) -> str:
    drawn = [roc for roc in sorting.rocs if roc.points]
    missing = [roc.name for roc in sorting.rocs if not roc.points]
    note = (
        f'<p class="note">No curve for {escape(", ".join(missing))}: it takes samples of both kinds.</p>'
        if missing
        else ""
    )
    if not drawn:
        return note
    return (
        f"{roc_chart(drawn, 'Receiver operating characteristic')}{note}"
        '<p class="note">Each curve is of one class against all others; “or more” takes the classes from there on '
        "together. The number is the area under the curve: the chance that a sample of the class scores higher than "
        "another one.</p>"
    )


def _calibration(sorting: Sorting) -> str:
    return (
        f"{reliability_chart(sorting.calibration, 'Reliability diagram')}"
        f'<p class="note">How often the model is right, by how sure it says it is; a larger dot stands for more '
        f"samples. On the dotted line both agree. Mean distance from it (expected calibration error): "
        f"{sorting.calibration_error:.3f}.</p>"
    )


def _mistakes(sorting: Sorting, thumbnails: Mapping[int, bytes]) -> str:
    if not sorting.mistakes:
        return "<p>None: every sample was sorted into its class.</p>"
    items = "".join(_mistake(each, thumbnails.get(each.number)) for each in sorting.mistakes)
    shown, count = len(sorting.mistakes), sorting.mistake_count
    words = f"All {count} mistakes" if shown == count else f"The {shown} most confident of {count:,} mistakes"
    return f'<p class="note">{words}, as the model sees the images.</p><ol class="mistakes">{items}</ol>'


def _mistake(each: Mistake, picture: bytes | None) -> str:
    said = f"{each.predicted} ({each.probability:.0%}), is {each.label} ({each.probability_of_label:.0%})"
    image = ""
    if picture is not None:
        source = base64.b64encode(picture).decode()
        alternative = escape(f"{each.key}: sorted into {said}", quote=True)
        image = f'<img src="data:image/jpeg;base64,{source}" alt="{alternative}">'
    return (
        f"<li>{image}said <b>{escape(each.predicted)}</b> {each.probability:.0%}<br>is <b>{escape(each.label)}</b> "
        f'{each.probability_of_label:.0%}<br><span class="name">{escape(each.key)}</span></li>'
    )


def _origin(evaluation: Evaluation) -> str:
    data = evaluation.dataset
    known = "" if data.trained_on else " (not the data the run was trained on)"
    facts = {
        "run": f"{evaluation.run}, incarnation {evaluation.incarnation}",
        "task and model": f"{evaluation.task}{', ' + evaluation.model if evaluation.model else ''}",
        "dataset": f"{_data_name(evaluation)}{known}",
        "dataset content": data.content_sha256 or "not identified",
        "checkpoint": evaluation.checkpoint,
        "weights SHA-256": evaluation.weights_sha256,
        "state SHA-256": evaluation.state_sha256,
        "evaluated": datetime.fromtimestamp(evaluation.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "on": ", ".join(f"{name} {value}" for name, value in evaluation.device.items()),
        "with": f"Starling {evaluation.starling}",
        "command": evaluation.command,
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(str(fact))}</code></dd>" for name, fact in facts.items())
    return f"<dl>{rows}</dl>"


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(caption: str, head: Iterable[str], rows: Iterable[list[str]]) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{named}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _data_name(evaluation: Evaluation) -> str:
    return f"{evaluation.dataset.name or 'its own data'}, split {evaluation.dataset.split}"


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace("macro f1", "macro F1")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _range(metric: Metric) -> str:
    return f"{metric.low:.4f} to {metric.high:.4f}" if metric.low is not None and metric.high is not None else "-"
