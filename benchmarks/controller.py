"""What a controller's thinking costs: one pass of `decide` over many runs and nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):  # called by its file name
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from benchmarks.cloud_calls import Calls, cloud_calls
from benchmarks.fleet import NOW, Shape, fleet
from benchmarks.report import Goal, Options, Report, Table, main
from starling.orchestrator.decide import decide
from starling.orchestrator.facts import Facts

PASSES = 5
SHAPES = (
    Shape(runs=1000, nodes=10, past=2),
    Shape(runs=10, nodes=1000, past=2),
    Shape(runs=1, nodes=10_000, past=2),
)
FLEETS = (1, 100, 1000)
"""Nodes of the runs whose calls to AWS are counted."""
GOALS = (
    Goal(figure="pass_cpu_s", limit=1.0),
    Goal(figure="pass_peak_mb", limit=500.0),
    Goal(figure="cloud_calls_per_30_s", limit=1.0),
)


def measure(options: Options) -> Report:
    shapes = [shape.smaller(20) for shape in SHAPES] if options.quick else SHAPES
    measured = [_measure_alone(shape) for shape in shapes]
    rows = tuple(
        (shape.title, f"{shape.records:,}", f"{cpu:.3f}", f"{mb:.0f}", f"{actions:,.0f}")
        for shape, (cpu, mb, actions) in zip(shapes, measured, strict=True)
    )
    table = Table(
        title="One pass of the pure part",
        columns=("fleet", "node records", "CPU s", "peak MB of the process", "actions decided"),
        rows=rows,
        note="Each fleet holds two past generations of every node; of every hundred nodes one is announced to be "
        "taken, one is dead, one is silent. CPU is the median of the passes; the peak includes Python and the facts.",
    )
    worst = max(range(len(shapes)), key=lambda index: measured[index][0])
    called = [cloud_calls(nodes) for nodes in ((1, 5) if options.quick else FLEETS)]
    return Report(
        title="Controller",
        question="How much CPU and memory does deciding take, for 10,000 nodes in few or many runs? There is no peer "
        "to measure beside: other orchestrators' decisions cannot be called without their I/O.",
        tables=(table, _calls_table(called)),
        figures={
            "pass_cpu_s": measured[worst][0],
            "pass_peak_mb": max(mb for _, mb, _ in measured),
            "pass_cpu_s_1000_runs": measured[0][0],
            "one_controller_process_mb": _one_process_mb(),
            "cloud_calls_per_30_s": max(calls.per_half_minute for calls in called),
        },
        goals=GOALS,
        notes=(
            "Every run has a controller process of its own today, so that one run's trouble is no other's; "
            "`one_controller_process_mb` is what one takes in memory before it has looked at its run.",
        ),
    )


def _calls_table(called: list[Calls]) -> Table:
    rows = []
    for calls in called:
        fleets = calls.launching["CreateFleet"]
        rest = calls.launching.total() - fleets
        watched = ", ".join(f"{count} {name}" for name, count in sorted(calls.quiet.items()))
        rows.append(
            (f"{calls.nodes:,}", f"{rest}", f"{fleets / calls.nodes:.2f}", watched, f"{calls.per_half_minute:.2f}")
        )
    return Table(
        title="Calls to AWS (emulated cloud, simulated time)",
        columns=("nodes", "calls besides launches", "launches a node", "in 5 quiet minutes", "per 30 s"),
        rows=tuple(rows),
        note="From the first look to the last launch: what is there (passes over ten looks, offers, template), and one "
        "CreateFleet a node, because its client token and its tags are the node's own. Further pages of a list, a "
        "thousand instances each, count as calls. Then the run trains, and nothing happens to it.",
    )


def _measure_alone(shape: Shape) -> tuple[float, float, float]:
    """CPU seconds of a pass, peak MB, and actions, in a process of its own: peaks are never given back."""
    code = "import sys; from benchmarks.controller import alone; alone(*map(int, sys.argv[1:]))"
    numbers = [str(number) for number in (shape.runs, shape.nodes, shape.past)]
    root = Path(__file__).resolve().parent.parent
    ran = subprocess.run(
        [sys.executable, "-c", code, *numbers], cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    cpu, mb, actions = map(float, ran.stdout.split())
    return cpu, mb, actions


def alone(runs: int, nodes: int, past: int) -> None:
    """Print one shape's figures."""
    facts = fleet(Shape(runs=runs, nodes=nodes, past=past))
    seconds = sorted(_cpu_seconds(lambda: _pass(facts)) for _ in range(PASSES))
    print(seconds[PASSES // 2], _peak_mb(), _pass(facts))


def _pass(runs: list[Facts]) -> int:
    return sum(len(decide(facts, NOW).actions) for facts in runs)


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _peak_mb() -> float:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def _one_process_mb() -> float:
    code = "import starling.orchestrator.controller, sys; print(flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        held: int = psutil.Process(process.pid).memory_info().rss
        process.stdin.close()
    return held / 2**20


if __name__ == "__main__":
    sys.exit(main(measure))
