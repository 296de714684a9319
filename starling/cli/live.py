"""What a watched run looks like: a live panel on a terminal, a line on every change elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from starling.cli.output import clock_time, money, span
from starling.cli.result_text import snapshot_text
from starling.infra.records import Event
from starling.orchestrator.report import View

EVENTS_SHOWN = 6
BAR_WIDTH = 40
PLAIN_STEP_SHARE = 0.05
"""Without a terminal, progress is printed whenever so much of the run has been done."""


class LiveDisplay:
    """A panel that is drawn over itself."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, view: View, told: dict[str, Any]) -> None:
        self._live.update(panel(view, told), refresh=True)


class PlainDisplay:
    """Lines, each only when something has changed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = 0
        self._said = ""
        self._share = -1.0

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.flush()

    def show(self, view: View, told: dict[str, Any]) -> None:
        for event in view.events[self._shown :]:
            self._print(event_line(event))
        self._shown = len(view.events)
        total = told["total_steps"]
        share = told["step"] / total if total else 0.0
        key = f"{told['state']} {told['round']} {told['world_size']}"
        if key != self._said or share >= self._share + PLAIN_STEP_SHARE:
            self._said, self._share = key, share
            self._print(headline(told))

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def headline(told: dict[str, Any]) -> str:
    """The state of a run in one line."""
    parts = [f"{told['run']} {told['state']}"]
    if told["state"] == "pending" and told["reason"]:
        parts.append(told["reason"])
    if told["total_steps"]:
        parts.append(f"step {told['step']}/{told['total_steps']}, epoch {told['epoch']}")
    if told["loss"] is not None:
        parts.append(f"loss {told['loss']:.4f}")
    parts.append(f"world size {told['world_size']}, {len(told['nodes'])} nodes")
    if told["checkpoint"]:
        parts.append(f"checkpoint {told['checkpoint']['step']}")
    if told.get("snapshot"):
        parts.append(f"snapshot {told['snapshot']['number']}")
    parts.append(money(told["cost"]))
    if told["state"] == "running" and (left := _seconds_left(told)) is not None:
        parts.append(f"{span(left)} left")
    return ", ".join(parts)


def panel(view: View, told: dict[str, Any]) -> RenderableType:
    """Everything worth watching."""
    total, step = told["total_steps"], told["step"]
    bar = Table.grid()  # a bare bar does not end its line
    bar.add_row(ProgressBar(total=total or 1, completed=step if total else 0, width=BAR_WIDTH))
    parts: list[RenderableType] = [Text(headline(told), style="bold")]
    if "snapshot" not in told:  # nobody but a script knows how far it is
        parts.append(bar)
    if told["reason"]:
        parts.append(Text(told["reason"], style="yellow"))
    if told["nodes"]:
        parts.append(_nodes(told["nodes"]))
    parts.append(Text(_saved(told), style="dim"))
    parts += [Text(event_line(event), style="dim") for event in view.events[-EVENTS_SHOWN:]]
    return Group(*parts)


def _saved(told: dict[str, Any]) -> str:
    if "snapshot" in told:
        return snapshot_text(told["snapshot"])
    if saved := told["checkpoint"]:
        return f"last checkpoint: step {saved['step']} at {clock_time(saved['committed_at'])}"
    return "no checkpoint yet"


def event_line(event: Event) -> str:
    """An event in one line."""
    return f"{clock_time(event.at)}  {event.kind.value:<18} {event.subject:<24} {event.reason}"


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("node", "state", "rank", "type", "zone", "market", "since"):
        shown.add_column(head)
    for node in nodes:
        state = node["state"] + (f" ({node['notice']['kind']} notice)" if node["notice"] else "")
        rank = str(node["rank"]) if node["rank"] is not None else "-"
        since = clock_time(node["launched_at"])
        shown.add_row(node["id"], state, rank, node["instance_type"], node["zone"], node["market"], since)
    return shown


def _seconds_left(told: dict[str, Any]) -> float | None:
    if not told["total_steps"] or not told["step_seconds"]:
        return None
    return float((told["total_steps"] - told["step"]) * told["step_seconds"])
