"""The drawings of an evaluation's page as inline SVG. Colours come from the page's style, by class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from starling.trainer.judging.evaluation import Bin, ClassScores, Roc

SIDE = 300.0
"""Of the square plots, in user units."""
LEFT, TOP, RIGHT, BOTTOM = 46.0, 10.0, 12.0, 42.0
COLOURS, DASHES = 7, 6
"""That the style knows. Each curve has its own pair of them: colour alone would not do for everybody."""


def roc_chart(rocs: Sequence[Roc], title: str) -> str:
    """All curves in one square, with a legend that names their areas."""
    lines = "".join(
        f'<polyline class="{_line(number)}" points="{_path(roc.points)}"><title>{escape(roc.name)}</title></polyline>'
        for number, roc in enumerate(rocs)
    )
    described = "; ".join(f"{roc.name}: area {_number(roc.auc.value)}" for roc in rocs)
    plot = _square(title, described, "false positive rate", "true positive rate", lines)
    return f"<figure>{plot}<figcaption>{_legend(rocs)}</figcaption></figure>"


def reliability_chart(bins: Sequence[Bin], title: str) -> str:
    """Accuracy over confidence; on the diagonal a model is as often right as it says."""
    filled = [each for each in bins if each.confidence is not None and each.accuracy is not None]
    most = max((each.count for each in filled), default=1)
    bars = "".join(_bar(each) for each in filled)
    dots = "".join(
        f'<circle class="dot" cx="{_x(each.confidence or 0):.1f}" cy="{_y(each.accuracy or 0):.1f}" '
        f'r="{3 + 5 * (each.count / most) ** 0.5:.1f}"><title>{each.count} samples: confidence '
        f"{_number(each.confidence)}, accuracy {_number(each.accuracy)}</title></circle>"
        for each in filled
    )
    described = "; ".join(
        f"confidence {_number(each.confidence)}: accuracy {_number(each.accuracy)} of {each.count}" for each in filled
    )
    return f"<figure>{_square(title, described, 'confidence', 'accuracy', bars + dots)}</figure>"


def count_chart(classes: Sequence[ClassScores], title: str) -> str:
    """For every class a bar of its samples, and a thin one of those that were sorted into it."""
    row, width = 34.0, 300.0
    label = 16 + 7 * max((len(_short(each.name)) for each in classes), default=0)
    most = max((max(each.support, each.predicted) for each in classes), default=0) or 1
    parts = []
    for number, each in enumerate(classes):
        y = number * row
        parts.append(
            f'<text class="label" x="{label - 8}" y="{y + 18}" text-anchor="end">{escape(_short(each.name))}</text>'
            f'<rect class="bar" x="{label}" y="{y + 4}" width="{each.support / most * width:.1f}" height="13"/>'
            f'<rect class="bar2" x="{label}" y="{y + 19}" width="{each.predicted / most * width:.1f}" height="6"/>'
            f'<text class="tick" x="{label + each.support / most * width + 6:.1f}" y="{y + 15}">{each.support}</text>'
        )
    described = "; ".join(f"{each.name}: {each.support}, sorted into it {each.predicted}" for each in classes)
    size = f"0 0 {label + width + 60:.0f} {row * len(classes):.0f}"
    legend = (
        '<ul class="legend"><li><i class="key bar"></i>samples of the class</li>'
        '<li><i class="key bar2"></i>sorted into it</li></ul>'
    )
    drawing = _svg(size, "wide", title, described, "".join(parts))
    return f"<figure>{drawing}<figcaption>{legend}</figcaption></figure>"


def _square(title: str, described: str, x_name: str, y_name: str, content: str) -> str:
    """Axes from 0 to 1, grid and diagonal around some content."""
    ticks = [index / 5 for index in range(6)]
    grid = "".join(
        f'<path class="grid" d="M{_x(t):.1f} {_y(0):.1f}V{_y(1):.1f}M{_x(0):.1f} {_y(t):.1f}H{_x(1):.1f}"/>'
        f'<text class="tick" x="{_x(t):.1f}" y="{_y(0) + 16:.1f}" text-anchor="middle">{t:.1f}</text>'
        f'<text class="tick" x="{_x(0) - 7:.1f}" y="{_y(t) + 4:.1f}" text-anchor="end">{t:.1f}</text>'
        for t in ticks
    )
    middle = TOP + SIDE / 2
    names = (
        f'<text class="label" x="{LEFT + SIDE / 2:.0f}" y="{TOP + SIDE + 35:.0f}" text-anchor="middle">{x_name}</text>'
        f'<text class="label" transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{y_name}</text>'
    )
    diagonal = f'<path class="diagonal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>'
    size = f"0 0 {LEFT + SIDE + RIGHT:.0f} {TOP + SIDE + BOTTOM:.0f}"
    return _svg(size, "square", title, described, grid + diagonal + content + names)


def _svg(box: str, kind: str, title: str, described: str, content: str) -> str:
    """With its text alternative: what a screen reader says instead of the drawing."""
    label = escape(f"{title}. {described}", quote=True)
    width, height = box.split()[2:]
    size = f'width="{width}" height="{height}" viewBox="{box}"'
    return f'<svg class="{kind}" {size} role="img" aria-label="{label}">{content}</svg>'


def _legend(rocs: Sequence[Roc]) -> str:
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="{_line(number)}" '
        f'd="M0 4H30"/></svg>{escape(roc.name)} <b>{_number(roc.auc.value)}</b>{_interval(roc)}</li>'
        for number, roc in enumerate(rocs)
    )
    return f'<ul class="legend">{items}</ul>'


def _line(number: int) -> str:
    return f"line c{number % COLOURS} d{number % DASHES}"


def _interval(roc: Roc) -> str:
    if roc.auc.low is None or roc.auc.high is None:
        return ""
    return f' <span class="quiet">{roc.auc.low:.3f} to {roc.auc.high:.3f}</span>'


def _bar(each: Bin) -> str:
    """From the diagonal to the accuracy: how far the model is off."""
    confidence, accuracy = each.confidence or 0.0, each.accuracy or 0.0
    top, bottom = _y(max(confidence, accuracy)), _y(min(confidence, accuracy))
    return (
        f'<rect class="gap" x="{_x(each.low) + 1:.1f}" y="{top:.1f}" '
        f'width="{max(_x(each.high) - _x(each.low) - 2, 1):.1f}" height="{bottom - top:.1f}"/>'
    )


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)


def _x(value: float) -> float:
    return LEFT + value * SIDE


def _y(value: float) -> float:
    return TOP + (1 - value) * SIDE


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
