"""How soon training goes on after nodes are killed: Starling with its defaults beside stock torchrun with c10d."""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # so that the file can be run by its path as well

from benchmarks.recovery_groups.group import Group, Loss, NotTraining  # noqa: E402
from benchmarks.recovery_groups.starling_nodes import StarlingNodes  # noqa: E402
from benchmarks.recovery_groups.torchrun_nodes import Settings, TorchrunNodes  # noqa: E402
from benchmarks.report import Goal, Options, Report, Table, main, spread  # noqa: E402
from starling.infra.region.s3_server import S3Server, s3_server  # noqa: E402

NODES = 4
REPETITIONS = 3
LIMIT = 60.0
"""Seconds after which a group counts as not recovering."""
GOAL = 0.5
MAX_BROKEN = 10
"""Groups that did not come together; more than so many, and something else is wrong."""

OTHER, TWO, FIRST = "one node", "two at once", "the node of rank 0"
CASES = (OTHER, TWO, FIRST)

FOLDER, S3 = "Starling, folder", "Starling, S3"
DEFAULT, TUNED = "torchrun", "torchrun, tuned"
DEFAULT_OUTSIDE, TUNED_OUTSIDE = "torchrun, host outside", "torchrun, tuned, host outside"

# Found by trying: one second is the smallest that both take, and two missed heartbeats are the fewest that a node
# whose one heartbeat is a little late survives. Without the variable torch 2.13's survivors mostly do not find
# together again at all (they keep the dead node's address).
TUNING = Settings(
    rendezvous={"keep_alive_interval": 1, "keep_alive_max_attempt": 2, "last_call_timeout": 1},
    options=("--monitor-interval=0.05",),
    environment={"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
)
TUNING_OUTSIDE = Settings(
    rendezvous=TUNING.rendezvous, options=TUNING.options, environment=TUNING.environment, host_outside=True
)


@dataclass(kw_only=True)
class Findings:
    """Losses by (system, case), and groups that could not be measured further."""

    losses: dict[tuple[str, str], list[Loss]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def seconds(self, system: str, case: str) -> list[float]:
        """Of those that recovered."""
        return [loss.seconds for loss in self.losses.get((system, case), []) if loss.seconds is not None]

    def charged(self, system: str, case: str) -> list[float]:
        """Of all; one that did not recover took at least the limit."""
        return [LIMIT if loss.seconds is None else loss.seconds for loss in self.losses.get((system, case), [])]


def measure(options: Options) -> Report:
    """Kill nodes of groups of each kind, in turn."""
    findings = Findings()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder, s3_server(Path(folder)) as server:
        for number, (system, case) in enumerate(_schedule(options)):
            _measure_case(_makers(server)[system], Path(folder) / str(number), system, case, findings, chance)
    return _report(findings)


def _schedule(options: Options) -> Iterator[tuple[str, str]]:
    """Which losses, in which order."""
    if options.quick:
        yield from ((system, OTHER) for system in (FOLDER, TUNED_OUTSIDE))
        return
    for repetition in range(REPETITIONS):
        systems = [FOLDER, TUNED_OUTSIDE, S3, TUNED]
        if repetition == 0:
            systems += [DEFAULT, DEFAULT_OUTSIDE]  # a minute each
        for case in CASES:
            yield from ((system, case) for system in (systems if repetition % 2 == 0 else systems[::-1]))


def _makers(server: S3Server) -> dict[str, Callable[[Path], Group]]:
    return {
        FOLDER: lambda folder: StarlingNodes(folder, NODES, str(folder / "store"), {}),
        S3: lambda folder: StarlingNodes(folder, NODES, server.new_bucket(), server.environment),
        DEFAULT: lambda folder: TorchrunNodes(folder, NODES, Settings()),
        DEFAULT_OUTSIDE: lambda folder: TorchrunNodes(folder, NODES, Settings(host_outside=True)),
        TUNED: lambda folder: TorchrunNodes(folder, NODES, TUNING),
        TUNED_OUTSIDE: lambda folder: TorchrunNodes(folder, NODES, TUNING_OUTSIDE),
    }


def _measure_case(
    make: Callable[[Path], Group], folder: Path, system: str, case: str, findings: Findings, chance: random.Random
) -> None:
    """One loss, in a group of its own. A group that does not come together is given up for another."""
    for attempt in itertools.count():
        try:
            with make(folder / str(attempt)) as group:
                loss = group.lose(_victims(group, case), LIMIT, chance)
        except NotTraining as error:
            findings.broken.append(f"{system}: {error}")
            if len(findings.broken) > MAX_BROKEN:
                raise
            continue
        findings.losses.setdefault((system, case), []).append(loss)
        print(f"{system}, {case}: {loss.seconds}")
        return


def _victims(group: Group, case: str) -> list[str]:
    """Who dies. With the rendezvous inside, the node of rank 0 stands for the one that hosts it."""
    by_rank = [group.node_of_rank(rank) for rank in range(NODES)]
    first = group.hosting_node() or by_rank[0]
    others = [node for node in by_rank[1:] if node != first]
    return {FIRST: [first], OTHER: others[-1:], TWO: others[-2:]}[case]


def _report(findings: Findings) -> Report:
    ratios = _ratios(findings)
    ours = [s for system in (FOLDER, S3) for case in CASES for s in findings.charged(system, case)]
    figures = {
        "ratio_vs_torchrun_tuned": statistics.median(ratios.values()),
        "worst_ratio_vs_torchrun_tuned": max(ratios.values()),
        "starling_median_s": statistics.median(ours),
    }
    return Report(
        title="Recovery after SIGKILL",
        question=(
            f"{NODES} nodes train; some are killed, every process at the same instant. How long until all survivors "
            "have completed the next step together? The same model, samples and clock for both; product defaults for "
            "Starling, nothing preloaded for torchrun that its users could not have."
        ),
        tables=(_times(findings), _breakdown(findings)),
        figures=figures,
        goals=(Goal(figure="ratio_vs_torchrun_tuned", limit=GOAL),),
        notes=(*_NOTES, *findings.broken),
    )


def _ratios(findings: Findings) -> dict[tuple[str, str], float]:
    """Our median over tuned torchrun's, for each store and case, against whichever of its two forms is faster."""
    ratios = {}
    for case in CASES:
        theirs = [
            statistics.median(found) for system in (TUNED, TUNED_OUTSIDE) if (found := findings.seconds(system, case))
        ]
        for system in (FOLDER, S3):
            if theirs and (found := findings.charged(system, case)):
                ratios[system, case] = statistics.median(found) / min(theirs)
    return ratios


def _times(findings: Findings) -> Table:
    systems = [FOLDER, S3, TUNED, TUNED_OUTSIDE, DEFAULT, DEFAULT_OUTSIDE]
    rows = tuple((system, *(_cell(findings, system, case) for case in CASES)) for system in systems)
    return Table(
        title="Seconds from the kill to the next completed step: median (least-most), of how many",
        columns=("", *CASES),
        rows=tuple(row for row in rows if any(cell != "-" for cell in row[1:])),
        note=f"two at once: the world goes from {NODES} to {NODES - 2}, else to {NODES - 1}. "
        "torchrun without 'host outside': the rendezvous lives on the node of rank 0.",
    )


def _cell(findings: Findings, system: str, case: str) -> str:
    losses = findings.losses.get((system, case), [])
    recovered = findings.seconds(system, case)
    ended = sum(loss.ended for loss in losses)
    late = len(losses) - len(recovered) - ended
    parts = [f"{spread(recovered)} of {len(recovered)}"] if recovered else []
    parts += [f"job ended: {ended}"] if ended else []
    parts += [f">{LIMIT:.0f}: {late}"] if late else []
    return ", ".join(parts) or "-"


def _breakdown(findings: Findings) -> Table:
    """Where the time goes, for the loss of one node."""
    rows = []
    for system in (FOLDER, S3, TUNED_OUTSIDE):
        phases = [loss.phases for case in CASES for loss in findings.losses.get((system, case), []) if loss.phases]
        names = list(dict.fromkeys(name for each in phases for name in each))
        rows += [(system, name, spread([each.get(name, 0.0) for each in phases])) for name in names]
    return Table(
        title="Where it goes: seconds of each part, all cases together",
        columns=("", "part", "median (least-most)"),
        rows=tuple(rows),
        note="Each part ends when the last survivor has ended it.",
    )


_NOTES = (
    "ratio_vs_torchrun_tuned: for each store (folder, S3) and case, our median divided by the median of tuned "
    "torchrun, in its faster form of the two; of these ratios the median. worst_ratio is the largest. A loss that was "
    f"not recovered from counts as {LIMIT:.0f} s for Starling, and not at all for torchrun.",
    "Tuned: "
    + ", ".join(f"{key}={value}" for key, value in TUNING.rendezvous.items())
    + f", {' '.join(TUNING.options)}, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, --max-restarts=1000. Two missed heartbeats "
    "of one second are the least that is safe at all; last_call_timeout takes no less than 1.",
    "torchrun's script saves and loads in a folder, on S3 as well as not: it is not charged for a bucket.",
    "The device is pretended (1 ms a sample), so that four nodes on one machine do not compete for its cores by "
    "training. Every loss has a group of its own. Starling's controller is held (SIGSTOP), so that no replacement "
    "boots on the cores whose recovery is timed; torchrun starts none.",
)


if __name__ == "__main__":
    sys.exit(main(measure))
