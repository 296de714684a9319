"""A study: several variants of one spec, each with several seeds, as one table.

    python examples/studies/run_study.py configs/studies/transfer-learning.yaml

The study is a YAML file: `spec` (relative to it), `seeds`, `metrics`, and `variants` (name -> overrides). Every run is
an ordinary `starling run`, one after the other. A run that is there already is not trained again, so that a study can
be killed and started again. The table shows the mean over the seeds and, behind ±, the standard deviation.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NOT_THERE = 2
"""Exit code of `starling result` for a run that does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What to run."""

    name: str
    spec: Path
    seeds: list[int]
    metrics: list[str]
    variants: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a study file; SystemExit says what is wrong with it."""
        given = yaml.safe_load(path.read_text())
        if set(given) != {"spec", "seeds", "metrics", "variants"}:
            raise SystemExit(f"{path}: the keys are spec, seeds, metrics and variants, not {', '.join(given)}")
        return cls(name=path.stem, **given | {"spec": path.parent / given["spec"]})

    def run_name(self, variant: str, seed: int) -> str:
        """The id of one run."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name}-{variant}-{seed}".lower())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("-o", "--override", action="append", default=[], help="for every run, as in `starling run`")
    arguments = parser.parse_args()
    study = Study.read(arguments.study)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in study.variants}
    for variant in study.variants:
        for seed in study.seeds:
            found[variant].append(metrics_of(study, variant, seed, arguments.override))
    print(table(found, study.metrics))


def metrics_of(study: Study, variant: str, seed: int, everywhere: Sequence[str]) -> dict[str, float]:
    """What came of one run, trained now if it was not."""
    name = study.run_name(variant, seed)
    told = starling("result", name)
    if told is None or told["state"] != "done":
        overrides = [*study.variants[variant], *everywhere, f"training.seed={seed}"]
        words = [word for override in overrides for word in ("-o", override)]
        resumed = told is not None
        told = starling("resume", name) if resumed else starling("run", str(study.spec), "--name", name, *words)
    if told is None or told["state"] != "done":
        raise SystemExit(f"run {name} is not done; look at it with: starling status {name}")
    metrics: dict[str, float] = told["metrics"]
    return metrics


def starling(*words: str) -> dict[str, Any] | None:
    """What a verb prints with --json; None if there is no such run."""
    ran = subprocess.run([sys.executable, "-m", "starling.cli", *words, "--json"], stdout=subprocess.PIPE, text=True)
    if words[0] == "result" and ran.returncode == NOT_THERE:
        return None
    told: dict[str, Any] = json.loads(ran.stdout) if ran.stdout else {"state": f"exit code {ran.returncode}"}
    return told


def table(found: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str]) -> str:
    """Markdown: a line for each variant, a column for each metric."""
    lines = [["", *metrics, "runs"], ["---"] * (len(metrics) + 2)]
    for variant, runs in found.items():
        cells = [spread([run[metric] for run in runs if metric in run]) for metric in metrics]
        lines.append([variant, *cells, str(len(runs))])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; a dash if there is nothing."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
