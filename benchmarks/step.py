"""How long a training step takes in our loop, beside a plain PyTorch loop."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

if __name__ == "__main__" and not __package__:  # as a file, not with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch.distributed.elastic.utils.distributed import get_free_port

from benchmarks.report import Goal, Options, Report, Table, main, spread
from benchmarks.taking_turns import Match, Timings, play

GOALS = (Goal(figure="ratio_plain_vs_bare", limit=1.03), Goal(figure="ratio_exact_w4_vs_ddp", limit=1.15))
RESNET = Match(
    world_size=1,
    exact=False,
    threads=1,
    model="torchvision/resnet18",
    pixels=64,
    global_batch=64,
    virtual_shards=8,
    stretch=2,
    turns=15,
)
QUICK = replace(RESNET, model="small-cnn", pixels=16, turns=2)
LARGER = 4
"""How many times larger the shards of the second exact match are."""


def matches(base: Match) -> dict[str, Match]:
    """By the name of their figure."""
    plain = {world: replace(base, world_size=world) for world in (1, 4)}
    exact = {world: replace(base, world_size=world, exact=True) for world in (1, 2, 4)}
    return {
        "ratio_plain_vs_bare": plain[1],
        "ratio_plain_w4_vs_ddp": plain[4],
        "ratio_exact_w1_vs_bare": exact[1],
        "ratio_exact_w2_vs_ddp": exact[2],
        "ratio_exact_w4_vs_ddp": exact[4],
        "ratio_exact_w4_vs_ddp_same_passes": replace(exact[4], plain_passes=passes_of(exact[4])),
        "ratio_exact_w4_vs_ddp_larger_shards": replace(exact[4], global_batch=LARGER * base.global_batch),
    }


def passes_of(match: Match) -> int:
    """Of our loop, on each rank, a step."""
    return -(-match.virtual_shards // match.world_size) if match.exact else 1


def measure(options: Options) -> Report:
    """Play all matches, one after the other."""
    base = QUICK if options.quick else RESNET
    figures: dict[str, float] = {}
    rows = []
    for figure, match in matches(base).items():
        timings = in_processes(match)
        figures |= _figures(figure, timings)
        rows.append(_row(match, timings))
    return Report(
        title="Overhead of a step",
        question=f"{base.model}, {base.pixels} px, {base.virtual_shards} virtual shards, SGD with momentum: one step "
        f"of our loop (votes, metrics, progress file), beside a plain PyTorch loop over the same images in memory, "
        f"with DistributedDataParallel where there are several ranks. {base.threads} CPU thread a rank; both sides in "
        f"the same processes, taking turns of {base.stretch} steps.",
        tables=(
            Table(
                title="Milliseconds a step",
                columns=(
                    "steps",
                    "ranks",
                    "batch",
                    "passes, ours / plain",
                    "ours",
                    "plain PyTorch",
                    "ratio",
                    "of CPU time",
                    "sent, ours / plain",
                ),
                rows=tuple(rows),
                note="Median (least-most) of all turns; ratios are of neighbouring turns; CPU time is that of rank 0. "
                "Sent: MB a step over the loopback interface, all ranks together.",
            ),
        ),
        figures=figures,
        goals=GOALS,
        notes=(
            "Exact steps run one small pass for each virtual shard of a rank, where plain PyTorch runs one large pass "
            "over all of them; with as many ranks as shards it is one pass for both.",
            "Where the rest of ratio_exact_w4_vs_ddp goes: small passes use a CPU worse than large ones do, whoever "
            "runs them. ratio_exact_w4_vs_ddp_same_passes is beside a plain loop that accumulates the gradients of as "
            "many passes as we make (with bits that depend on the number of ranks all the same); "
            f"ratio_exact_w4_vs_ddp_larger_shards is with shards of {LARGER} times as many images.",
            "Ranks beyond the number of cores share them: nothing overlaps with communication there, for either side.",
        ),
    )


def in_processes(match: Match) -> Timings:
    """Play a match with one process a rank; rank 0's timings."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.taking_turns"])
    port = get_free_port()
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_rank, args=(match, rank, port, Path(folder), sender))
            for rank in range(match.world_size)
        ]
        for process in ranks:
            process.start()
        sender.close()
        try:
            timings = receiver.recv()
        except EOFError:
            raise RuntimeError(f"a rank of {match} failed; see above") from None
        finally:
            for process in ranks:
                process.join(60)
                process.kill()
    assert isinstance(timings, Timings)
    return timings


def _rank(match: Match, rank: int, port: int, folder: Path, sender: Connection) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    timings = play(match, rank, folder)
    if rank == 0:
        sender.send(timings)


def _figures(figure: str, timings: Timings) -> dict[str, float]:
    name = figure.removeprefix("ratio_")
    return {
        figure: statistics.median(_ratios(timings)),
        f"ratio_cpu_{name}": statistics.median(_cpu_ratios(timings)),
        f"ours_{name}_ms": statistics.median(turn.seconds for turn in timings.ours) * 1000,
        f"pytorch_{name}_ms": statistics.median(turn.seconds for turn in timings.plain) * 1000,
    }


def _ratios(timings: Timings) -> list[float]:
    return [ours.seconds / plain.seconds for ours, plain in zip(timings.ours, timings.plain, strict=True)]


def _cpu_ratios(timings: Timings) -> list[float]:
    return [ours.cpu / plain.cpu for ours, plain in zip(timings.ours, timings.plain, strict=True)]


def _row(match: Match, timings: Timings) -> tuple[str, ...]:
    sent = [statistics.median(turn.sent for turn in turns) / 1e6 for turns in (timings.ours, timings.plain)]
    return (
        "exact" if match.exact else "plain",
        str(match.world_size),
        str(match.global_batch),
        f"{passes_of(match)} / {match.plain_passes}",
        spread([turn.seconds * 1000 for turn in timings.ours]),
        spread([turn.seconds * 1000 for turn in timings.plain]),
        spread(_ratios(timings)),
        spread(_cpu_ratios(timings)),
        f"{sent[0]:.0f} / {sent[1]:.0f}" if match.world_size > 1 else "-",
    )


if __name__ == "__main__":
    sys.exit(main(measure))
