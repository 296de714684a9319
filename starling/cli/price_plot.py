"""Draws spot prices over time into a picture. Needs matplotlib, which nothing else here does."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from starling.infra.errors import UsageError
from starling.infra.providers.aws.on_demand_prices import OnDemandPrice
from starling.infra.providers.aws.spot_prices import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg", "pdf")
TICKS = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
"""How years, months, days, hours, minutes and seconds are written ..."""
ROUND_TICKS = ["%Y", "%b %Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
"""... and where one of them begins a new one of the next larger kind."""


def check_plot(path: Path) -> None:
    """Say what is in the way of a plot before anything else is done. Raises UsageError."""
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UsageError(f"--plot {path}: use a file name that ends in .{', .'.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError('--plot needs matplotlib: pip install "starling[plot]"')


def draw(path: Path, histories: Sequence[History], on_demand: Mapping[str, OnDemandPrice]) -> None:
    """A stepped line a zone, and a dashed one for each on-demand price; those of the shipped table have its date."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, history in enumerate(histories):
        _draw_history(axes, history, number)
    for price, regions in _by_price(on_demand).items():
        where = ", ".join(regions) if len(regions) < 3 else f"{len(regions)} regions"
        axes.axhline(price, color="black", linestyle="--", linewidth=1, label=f"on demand, {where}")
    _draw_frame(axes, histories)
    figure.savefig(path, dpi=120)


def _by_price(on_demand: Mapping[str, OnDemandPrice]) -> dict[float, list[str]]:
    """The regions that ask the same."""
    found: dict[float, list[str]] = {}
    for region, known in on_demand.items():
        found.setdefault(known.price, []).append(f"{region} ({known.dated})" if known.dated else region)
    return found


def _draw_history(axes: Axes, history: History, number: int) -> None:
    at = [_time(step.at) for step in history.steps] + [_time(history.end)]
    prices = [step.price for step in history.steps] + [history.now]
    # Ten colours: from the eleventh line on, the dashes tell lines apart.
    dashes = ("-", "-.", ":")[number // 10 % 3]
    axes.step(at, prices, where="post", label=history.zone, linestyle=dashes, linewidth=1.5, color=f"C{number % 10}")  # type: ignore[arg-type]


def _draw_frame(axes: Axes, histories: Sequence[History]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first = histories[0]
    axes.set_title(f"{first.instance_type}: spot price by zone")
    axes.set_xlim(_time(first.start), _time(first.end))  # type: ignore[arg-type]
    axes.set_ylim(bottom=0)
    axes.set_xlabel("date (UTC)")
    axes.set_ylabel("US dollars an hour")
    axes.yaxis.set_major_formatter("${x:.3f}" if axes.get_ylim()[1] < 0.2 else "${x:.2f}")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, formats=TICKS, zero_formats=ROUND_TICKS))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, ncols=1 + len(histories) // 20)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
