"""What Starling does on this machine's GPU: the same bits through every interruption, and what that costs.

One command, on any machine with a checkout and torch 2.11 or later: `python -m benchmarks.gpu`. Where there is no CUDA
device it says so and ends well. `--device cpu --quick` runs every part in a tiny size on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # so that the file can be run by its path as well

NEEDED = {
    "torch": "torch>=2.11",
    "numpy": "numpy",
    "PIL": "pillow",
    "boto3": "boto3",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "rich": "rich",
    "safetensors": "safetensors",
    "typer": "typer",
    "yaml": "pyyaml",
}
"""Module -> what to install for it. torchvision, if there is one, gives its models; else our small one is measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if everything could be measured, or there is no such device; 2 if something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small, fast run: to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and (why := why_no_gpu()):
        print(f"nothing was measured: {why}")
        return 0
    if missing := [name for module, name in NEEDED.items() if find_spec(module) is None]:
        print(f"not installed: {', '.join(missing)}; install with: pip install {' '.join(map(repr, missing))}")
        return 2
    return _measure_and_show(chosen.device, quick=chosen.quick, as_json=chosen.json)


def why_no_gpu() -> str | None:
    """Why no CUDA device can be had; None if one can, or if torch, which would tell, is not there."""
    if find_spec("torch") is None:
        return None
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA, so no CUDA device can be had"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


def _measure_and_show(device: str, *, quick: bool, as_json: bool) -> int:
    from benchmarks.gpu_report import measure
    from benchmarks.report import machine, show

    began = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # whatever it prints on the way is not the result
        report = measure(device, quick=quick)
    options = "".join([" --quick" if quick else "", f" --device {device}" if device != "cuda" else ""])
    found = report.to_json() | {
        "command": f"python -m benchmarks.gpu{options}",
        "machine": machine(),
        "seconds": round(time.monotonic() - began, 1),
    }
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
