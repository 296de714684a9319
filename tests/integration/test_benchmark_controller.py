"""The controller benchmark runs, and says what it claims to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_small_run_reports_every_fleet() -> None:
    command = [sys.executable, "benchmarks/controller.py", "--quick", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    passes, calls = found["tables"]
    runs, many, one = passes["rows"]
    assert runs[1] == many[1] == one[1] == "1,500"
    assert int(runs[4].replace(",", "")) > 500, "at least one action a node: they may run longer than they know"
    assert 0 < found["pass_cpu_s_1000_runs"] <= found["pass_cpu_s"]
    assert {goal["figure"] for goal in found["goals"]} == {"pass_cpu_s", "pass_peak_mb", "cloud_calls_per_30_s"}
    assert all(float(row[-1]) <= 1 for row in calls["rows"]), "calls of a quiet run do not grow with its nodes"
    assert 10 < found["one_controller_process_mb"] < 500
