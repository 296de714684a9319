"""How long saving holds training up, until when a checkpoint is committed, and how fast it comes back."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # so that the file can be run by its path as well

import torch  # noqa: E402

from benchmarks.loading import OURS, S3FS, S3FS_ONLY, S3FS_WHOLE, seconds_of, store_state, ways_to_load  # noqa: E402
from benchmarks.report import Goal, Options, Report, Table, main, spread  # noqa: E402
from benchmarks.saving import Place, Way, all_ways  # noqa: E402
from starling.infra.region.s3_server import S3Server, s3_server  # noqa: E402

GOALS = (
    Goal(figure="blocked_ms", limit=50),
    Goal(figure="ratio_blocked_vs_sync_save", limit=0.1),
    Goal(figure="ratio_load_vs_s3fs_150mb", limit=3, at_least=True),
    Goal(figure="ratio_load_vs_s3fs_1500mb", limit=3, at_least=True),
)
WIDTH = 2165
"""Four layers of it and their momentum are 150 MB."""
SYNC = "torch.save"


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much to measure."""

    width: int = WIDTH
    saves: int = 8
    """Of each way that count; one more before them warms up."""
    steps: int = 8
    """Undisturbed, before every save, to know how long a step takes."""
    loads: tuple[int, int] = (6, 3)
    """Of 150 MB and of 1.5 GB, each way."""


QUICK = Size(width=200, saves=2, steps=3, loads=(2, 1))


@dataclass(kw_only=True, slots=True)
class Costs:
    """Of one way, one number a save, in seconds."""

    blocked: list[float] = field(default_factory=list)
    """How long the call held training up."""
    slower: list[float] = field(default_factory=list)
    """By how much the steps until the commit took longer than as many undisturbed ones, all together."""
    committed: list[float] = field(default_factory=list)
    """From the call until the state was in the store."""


def measure(options: Options) -> Report:
    """Save over both stores, then load from S3."""
    size = QUICK if options.quick else Size()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as server:
        os.environ |= server.environment
        saved = {
            "folder": _save_all(Place(uri=f"{folder}/store", disk=_new(folder, "a")), size),
            "S3": _save_all(Place(uri=server.new_bucket(), disk=_new(folder, "b")), size),
        }
        loaded = _load_all(server, _new(folder, "c"), size)
    return _report(size, saved, loaded)


class Training:
    """A small real loop whose state is large."""

    def __init__(self, width: int) -> None:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(width, width) for _ in range(4)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self._batch = torch.randn(32, width)
        self.done = 0

    def step(self) -> float:
        """Returns its seconds."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        (self.model(self._batch) ** 2).mean().backward()
        self.optimizer.step()
        self.done += 1
        return time.perf_counter() - began


def _save_all(place: Place, size: Size) -> dict[str, Costs]:
    training = Training(size.width)
    training.step()
    with all_ways(place) as ways:
        costs = {name: Costs() for name in ways}
        for turn in range(size.saves + 1):
            for name, way in ways.items():
                _save_once(training, way, size.steps, costs[name] if turn else Costs())
    return costs


def _save_once(training: Training, way: Way, steps: int, costs: Costs) -> None:
    usual = statistics.median(training.step() for _ in range(steps))
    began = time.perf_counter()
    way.save(training.done, training.model, training.optimizer)
    costs.blocked.append(time.perf_counter() - began)
    disturbed = []
    while not way.done():
        disturbed.append(training.step())
    costs.committed.append(time.perf_counter() - began)
    costs.slower.append(sum(disturbed) - usual * len(disturbed))


def _load_all(server: S3Server, disk: Path, size: Size) -> dict[int, dict[str, list[float]]]:
    """Megabytes -> way -> seconds of every load."""
    found: dict[int, dict[str, list[float]]] = {}
    place = Place(uri=server.new_bucket(), disk=disk)
    for megabytes, layers, times in zip((150, 1500), (4, 40), size.loads, strict=True):
        tensors = {f"model.{i}": torch.randn(2, size.width, size.width) for i in range(layers)}
        ways = ways_to_load(store_state(place, f"load-{megabytes}", tensors))
        found[megabytes] = {name: [] for name in ways}
        for _ in range(times):
            for name, load in ways.items():
                found[megabytes][name].append(seconds_of(load))
    return found


def _new(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def _report(size: Size, saved: dict[str, dict[str, Costs]], loaded: dict[int, dict[str, list[float]]]) -> Report:
    megabytes = 4 * 2 * 4 * size.width**2 / 1e6
    return Report(
        title="Checkpoints",
        question=f"A training loop on one CPU thread whose state is {megabytes:.0f} MB saves it again and again, in "
        "turn with each way, over a folder and over an S3 server on the same machine.",
        tables=(*(_save_table(name, costs) for name, costs in saved.items()), _load_table(loaded)),
        figures=_figures(saved, loaded),
        goals=GOALS,
        notes=(
            "blocked_ms and ratio_blocked_vs_sync_save are of whichever store is worse; the ratio is to torch.save of "
            "the same turn.",
            "The S3 server, the client and training share the machine's cores, which no real store does.",
            "Starling's load ends with tensors whose SHA-256 was verified. ratio_load_vs_s3fs_* is to s3fs doing "
            "nothing but reading the same object into memory, in the faster of its two ways; "
            "ratio_load_verified_vs_s3fs_* is to s3fs reading it, verifying its SHA-256 and making tensors of it.",
            "Where the rest of a load goes: the server's work and SHA-256 fill the two cores; the row that is only "
            "bytes is how fast the server hands them out. Hashing what has come while the rest is still under way was "
            "tried, and made no difference: no core is idle meanwhile.",
        ),
    )


def _save_table(store: str, costs: dict[str, Costs]) -> Table:
    rows = (
        (
            name,
            spread([1000 * seconds for seconds in cost.blocked]),
            spread([1000 * seconds for seconds in cost.slower]),
            spread(cost.committed),
        )
        for name, cost in costs.items()
    )
    return Table(
        title=f"Saving to {'a folder' if store == 'folder' else store}",
        columns=("", "blocked, ms", "later steps slower by, ms", "committed after, s"),
        rows=tuple(rows),
        note="Median (least-most). The third column is all that the steps until the commit lost together.",
    )


def _load_table(loaded: dict[int, dict[str, list[float]]]) -> Table:
    small, large = loaded.values()
    return Table(
        title="Loading from S3, seconds",
        columns=("", "150 MB", "1.5 GB"),
        rows=tuple((name, spread(small[name]), spread(large[name])) for name in small),
        note="Clients are new each time. The local file is for orientation: it is in the page cache, and not verified.",
    )


def _figures(saved: dict[str, dict[str, Costs]], loaded: dict[int, dict[str, list[float]]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for store, costs in saved.items():
        ours, sync = costs[OURS], costs[SYNC]
        ratios = [mine / theirs for mine, theirs in zip(ours.blocked, sync.blocked, strict=True)]
        name = store.lower()
        figures[f"blocked_{name}_ms"] = 1000 * statistics.median(ours.blocked)
        figures[f"ratio_blocked_vs_sync_save_{name}"] = statistics.median(ratios)
        figures[f"commit_{name}_s"] = statistics.median(ours.committed)
        figures[f"slower_{name}_ms"] = 1000 * statistics.median(ours.slower)
    for megabytes, seconds in loaded.items():
        reading = min((seconds[S3FS_ONLY], seconds[S3FS_WHOLE]), key=statistics.median)
        for theirs, name in ((reading, "ratio_load"), (seconds[S3FS], "ratio_load_verified")):
            ratios = [their / our for our, their in zip(seconds[OURS], theirs, strict=True)]
            figures[f"{name}_vs_s3fs_{megabytes}mb"] = statistics.median(ratios)
        figures[f"load_{megabytes}mb_s"] = statistics.median(seconds[OURS])
    worst = {
        "blocked_ms": max(figures["blocked_folder_ms"], figures["blocked_s3_ms"]),
        "ratio_blocked_vs_sync_save": max(
            figures["ratio_blocked_vs_sync_save_folder"], figures["ratio_blocked_vs_sync_save_s3"]
        ),
        "commit_s": max(figures["commit_folder_s"], figures["commit_s3_s"]),
    }
    return worst | figures


if __name__ == "__main__":
    sys.exit(main(measure))
