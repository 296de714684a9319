"""What a watched run looks like."""

from __future__ import annotations

import io

from rich.console import Console

from starling.cli.live import PlainDisplay, headline, panel
from starling.cli.output import money, span
from starling.infra.records import Event, EventKind, RunRecord
from starling.orchestrator.facts import Facts
from starling.orchestrator.report import View, status
from tests.support.specs import spec


def view(*reasons: str) -> View:
    facts = Facts(run=RunRecord(run="mine", created_at=0.0), spec=spec(), verdict=None, nodes=())
    events = tuple(
        Event(at=number, kind=EventKind.DECISION, subject="mine", reason=r) for number, r in enumerate(reasons)
    )
    return View(facts=facts, events=events, manifest=None, checkpoint_uri=None, now=1.0)


def running(**changes: object) -> dict[str, object]:
    node = {
        "id": "mine.0.0",
        "state": "training",
        "rank": 0,
        "instance_type": "local",
        "zone": "here",
        "market": "spot",
    }
    told = status(view()) | {"state": "running", "step": 10, "total_steps": 100, "step_seconds": 2.0, "loss": 0.5}
    return told | {"nodes": [{**node, "launched_at": 1.0, "notice": {"kind": "interruption"}}], **changes}


def test_the_headline_says_how_long_it_will_take() -> None:
    assert "step 10/100" in headline(running())
    assert "loss 0.5000" in headline(running())
    assert headline(running()).endswith("3 min 00 s left")


def test_the_panel_shows_nodes_checkpoint_and_events() -> None:
    console = Console(file=io.StringIO(), width=120)
    saved = {"step": 5, "committed_at": 1.0, "uri": "/x"}
    console.print(panel(view("three of three"), running(checkpoint=saved)))
    shown = console.file.getvalue()
    for text in ("mine.0.0", "interruption notice", "last checkpoint: step 5", "three of three", "$0.00"):
        assert text in shown
    assert next(line for line in shown.splitlines() if "━" in line).strip("━╸╺ ") == "", "the bar has its own line"


def test_plain_lines_come_on_change_only() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    display.show(view("one"), running())
    first = out.getvalue()
    display.show(view("one"), running())
    assert out.getvalue() == first
    display.show(view("one", "two"), running(step=60))
    added = out.getvalue().removeprefix(first).splitlines()
    assert len(added) == 2
    assert "two" in added[0]
    assert "step 60/100" in added[1]


def test_words_for_durations_and_money() -> None:
    assert [span(s) for s in (None, 3.21, 45, 200, 7500)] == ["-", "3.2 s", "45 s", "3 min 20 s", "2 h 05 min"]
    assert [money(d) for d in (None, 0, 0.0123, 12.5)] == ["-", "$0.00", "$0.0123", "$12.50"]
