"""The benchmark of steps runs, and says what it claims to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_compares_every_world_size() -> None:
    command = [sys.executable, "benchmarks/step.py", "--quick", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert {goal["figure"] for goal in found["goals"]} == {"ratio_plain_vs_bare", "ratio_exact_w4_vs_ddp"}
    ratios = {name: value for name, value in found["figures"].items() if name.startswith("ratio_")}
    assert all(value > 0 for value in ratios.values()), ratios
    # Of CPU time: whoever is made to wait in a turn of a few milliseconds has taken a hundred times as long.
    assert all(0.1 < value < 100 for name, value in ratios.items() if name.startswith("ratio_cpu_")), ratios
    assert found["ratio_cpu_exact_w1_vs_bare"] > 1, "eight small passes cannot be cheaper than one large one"
    (table,) = found["tables"]
    assert [tuple(row[:4]) for row in table["rows"]] == [
        ("plain", "1", "64", "1 / 1"),
        ("plain", "4", "64", "1 / 1"),
        ("exact", "1", "64", "8 / 1"),
        ("exact", "2", "64", "4 / 1"),
        ("exact", "4", "64", "2 / 1"),
        ("exact", "4", "64", "2 / 2"),
        ("exact", "4", "256", "2 / 1"),
    ]
