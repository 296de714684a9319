"""benchmarks/rendezvous.py in its quick form: it runs, and its numbers hang together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_rendezvous_benchmark_runs() -> None:
    command = [sys.executable, "benchmarks/rendezvous.py", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=580)
    found = json.loads(done.stdout)
    assert found["largest_group_members"] == 12
    assert found["largest_group_form_s"] > 0
    assert found["largest_group_reform_s"] > 0
    # Reading the group twice a second, beating every 5 s and looking at others' beats: nothing that grows.
    assert 1 < found["largest_group_calls_per_node_second"] < 5
    assert 0 < found["largest_group_dollars_per_node_hour"] < 0.05
    assert [len(table["rows"]) for table in found["tables"]] == [4, 4]
