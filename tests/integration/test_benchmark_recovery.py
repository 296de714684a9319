"""benchmarks/recovery.py in its quick form: both systems get over the loss of a node, and every second is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_recovery_benchmark_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.recovery", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=580)
    found = json.loads(done.stdout)
    times, breakdown = found["tables"]
    assert [row[0] for row in times["rows"]] == ["Starling, folder", "torchrun, tuned, host outside"]
    assert 0 < found["ratio_vs_torchrun_tuned"] == found["worst_ratio_vs_torchrun_tuned"] < 1
    ours = sum(float(row[2].split()[0]) for row in breakdown["rows"] if row[0] == "Starling, folder")
    assert ours == pytest.approx(found["starling_median_s"], rel=0.05), "the parts make up the whole"
    assert found["goals"][0]["reached"] == (found["ratio_vs_torchrun_tuned"] <= 0.5)
