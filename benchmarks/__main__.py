"""Runs the benchmarks one after the other and writes docs/performance.md from their results.

`python -m benchmarks` runs all; `python -m benchmarks step recovery` only these, and keeps the other results;
`--render` runs nothing. Results lie in benchmarks/results/, so that the page can be made again from them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.page import page

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
NAMES = ("recovery", "checkpoint", "step", "data", "rendezvous", "controller")
"""In the order of the page."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}")
    parser.add_argument("--render", action="store_true", help="make the page from earlier results")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no benchmark {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}")
    for name in () if chosen.render else chosen.names or NAMES:
        run(name)
    PAGE.write_text(rendered())
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def run(name: str) -> None:
    """Run one benchmark in a process of its own, so that none warms another up. Raises CalledProcessError."""
    print(f"benchmarks.{name} ...", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    (RESULTS / f"{name}.json").write_text(ran.stdout)


def rendered() -> str:
    """The page's text, from the results there are."""
    paths = [RESULTS / f"{name}.json" for name in NAMES]
    return page([json.loads(path.read_text()) for path in paths if path.exists()])


if __name__ == "__main__":
    sys.exit(main())
