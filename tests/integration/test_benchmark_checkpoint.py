"""The benchmark of checkpoints runs, and says what it claims to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_small_run_saves_to_both_stores_and_loads() -> None:
    command = [sys.executable, "benchmarks/checkpoint.py", "--quick", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    names = ["blocked_ms", "ratio_blocked_vs_sync_save", "ratio_load_vs_s3fs_150mb", "ratio_load_vs_s3fs_1500mb"]
    assert [goal["figure"] for goal in found["goals"]] == names
    assert all(found[name] > 0 for name in names)
    assert found["blocked_ms"] == max(found["blocked_folder_ms"], found["blocked_s3_ms"])
    assert found["commit_folder_s"] * 1000 > found["blocked_folder_ms"], "it is committed after training goes on"
    folder, s3, load = found["tables"]
    assert len(folder["rows"]) == len(s3["rows"]) == 4
    assert len(load["rows"]) == 6
