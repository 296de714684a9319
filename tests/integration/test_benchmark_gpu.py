"""The benchmark of GPUs: says so where there is none, and each of its parts works on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import main

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and would measure it")
def test_without_a_gpu_it_says_so_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("nothing was measured: ")
    assert "CUDA" in line


def test_it_names_what_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["benchmarks.gpu"].NEEDED, "no_such_module", "no-such-package")
    assert main(["--device", "cpu"]) == 2
    assert capsys.readouterr().out == ("not installed: no-such-package; install with: pip install 'no-such-package'\n")


@pytest.mark.timeout(600)  # three runs, one of them interrupted twice: a minute on two idle cores
def test_every_part_of_it_works_on_the_cpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    bits, steps, speeds, saving, waiting = (table["rows"] for table in found["tables"])
    assert [row[2] for row in bits] == ["yes", "yes"], bits
    assert bits[1][0] == "2 nodes, interrupted"
    assert found["runs_with_other_weights"] == 0
    assert [row[0] for row in steps] == ["exact", "plain"]
    assert len(speeds) == 2
    assert found["small_cnn_64px_exact_images_per_s"] > 0
    assert len(saving) == 2
    assert found["blocked_ms"] > 0
    assert 0 <= found["waiting_small_cnn"] < 1
    assert len(waiting) == 1
