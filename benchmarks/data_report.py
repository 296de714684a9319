"""The data benchmark's tables, figures and goals, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.data_passes import KINDS, OURS, RAW_BOTO3, RAW_STORE, Measured, Pass
from benchmarks.data_peers.turn import Outcome
from benchmarks.data_places import REQUIREMENTS, Place
from benchmarks.data_waiting import Waited
from benchmarks.report import Goal, Report, Table

GOALS = (
    Goal(figure="ratio_cold_vs_best_peer", limit=1, at_least=True),
    Goal(figure="ratio_cold_vs_ranged_gets", limit=0.8, at_least=True),
    Goal(figure="ratio_warm_vs_best_peer", limit=1, at_least=True),
    Goal(figure="ratio_30ms_vs_0ms", limit=0.8, at_least=True),
    Goal(figure="fetched_per_stored_byte", limit=1.02),
)
NONE = "-"


def report(place: Place, found: Measured, waited: Sequence[Waited]) -> Report:
    """All of it."""
    return Report(
        title="Data",
        question=f"{place.images:,} JPEGs of {place.bytes / place.images / 1000:.0f} kB (512 px) in an S3 server on "
        "the same machine, read once in shuffled order in batches of 32 with two workers (Starling: threads), by each "
        "reader in turn. An epoch counts from opening the dataset to the last batch.",
        tables=(
            _bytes_table(place, found),
            _far_table(place, found),
            _costs_table(place, found),
            _pixels_table(found),
            *([_waiting_table(waited)] if waited else []),
        ),
        figures=figures(place, found) | {f"waiting_{one.name}": one.share for one in waited},
        goals=tuple(goal for goal in GOALS if goal.figure in figures(place, found)),
        notes=_notes(found),
    )


def figures(place: Place, found: Measured) -> dict[str, float]:
    """Ratios are medians of those of neighbouring turns; the best peer is the one with the best median."""
    rate = _rates(place, found)
    raw = _best_raw(rate)
    known = {
        "cold_images_per_s": statistics.median(rate(OURS, Pass.COLD)),
        "warm_images_per_s": statistics.median(rate(OURS, Pass.WARM)),
        "far_images_per_s": statistics.median(rate(OURS, Pass.FAR)),
        "decoded_images_per_s": statistics.median(rate(OURS, Pass.PIXELS_WARM)),
        "first_batch_ms": 1000 * statistics.median(turn.first for turn in found.timed[OURS][Pass.COLD]),
        "memory_mb": found.whole[OURS].memory / 1e6,
        "ratio_cold_vs_ranged_gets": _ratio(rate(OURS, Pass.COLD), rate(raw, Pass.COLD)),
        "ratio_30ms_vs_0ms": _ratio(rate(OURS, Pass.FAR), rate(OURS, Pass.NEAR)),
        "fetched_per_stored_byte": found.whole[OURS].counts.answered_bytes / place.dataset_bytes,
        "fetched_from_the_middle": found.half[OURS].answered_bytes / place.dataset_bytes,
    }
    for one, name in ((Pass.COLD, "cold"), (Pass.WARM, "warm"), (Pass.PIXELS_WARM, "decoded")):
        if peer := _best_peer(rate, found, one):
            known[f"ratio_{name}_vs_best_peer"] = _ratio(rate(OURS, one), rate(peer, one))
    return known


Rate = Callable[[str, Pass], list[float]]


def _rates(place: Place, found: Measured) -> Rate:
    """Images a second of every turn; of ranged GETs, so many images' worth of bytes."""
    size = place.dataset_bytes / place.images

    def one(turn: Outcome) -> float:
        return (turn.images or turn.bytes / size) / turn.seconds

    return lambda name, how: [one(turn) for turn in found.timed[name][how]]


def _best_peer(rate: Rate, found: Measured, how: Pass) -> str | None:
    able = [name for name, kind in KINDS.items() if kind.peer and found.timed.get(name, {}).get(how)]
    return max(able, key=lambda name: statistics.median(rate(name, how)), default=None)


def _best_raw(rate: Rate) -> str:
    return max((RAW_BOTO3, RAW_STORE), key=lambda name: statistics.median(rate(name, Pass.COLD)))


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(mine / their for mine, their in zip(ours, theirs, strict=True))


def _bytes_table(place: Place, found: Measured) -> Table:
    rate = _rates(place, found)
    raw = rate(_best_raw(rate), Pass.COLD)
    rows = []
    for name in _present(found):
        cold, turns = rate(name, Pass.COLD), found.timed[name][Pass.COLD]
        warm = rate(name, Pass.WARM)
        rows.append(
            (
                KINDS[name].label,
                _spread(cold),
                f"{statistics.median(cold) * place.bytes / place.images / 1e6:.0f}",
                f"{_ratio(cold, raw):.2f}",
                _spread(warm) if warm else NONE,
                f"{1000 * statistics.median(turn.first for turn in turns):.0f}",
                f"{_cpu_of(turns, place):.2f}",
            )
        )
    return Table(
        title="Undecoded",
        columns=(
            "",
            "cold, images/s",
            "cold, MB/s",
            "of ranged GETs",
            "warm, images/s",
            "first batch, ms",
            "CPU an image, ms",
        ),
        rows=tuple(rows),
        note="Median (least-most) of the rounds. Cold: nothing on this machine's disk, new connections. Warm: once "
        "more in a new reader, from what the last one left on the disk. The first batch and the CPU time (of the "
        "reader and its workers, not the server's) are those of cold epochs. Local files are read, not fetched.",
    )


def _cpu_of(turns: Sequence[Outcome], place: Place) -> float:
    """Milliseconds an image."""
    return 1000 * statistics.median(turn.cpu for turn in turns) / place.images


def _far_table(place: Place, found: Measured) -> Table:
    rate = _rates(place, found)
    names = [name for name in _present(found) if found.timed[name].get(Pass.FAR)]
    return Table(
        title="With 30 ms more for each request",
        columns=("", "0 ms, images/s", "30 ms, images/s", "ratio"),
        rows=tuple(
            (
                KINDS[name].label,
                _spread(rate(name, Pass.NEAR)),
                _spread(rate(name, Pass.FAR)),
                f"{_ratio(rate(name, Pass.FAR), rate(name, Pass.NEAR)):.2f}",
            )
            for name in names
        ),
        note="Cold, both through a proxy, which takes some of the two cores; without it see above. One object a "
        "sample reads only a part of the images here.",
    )


def _costs_table(place: Place, found: Measured) -> Table:
    def row(name: str) -> tuple[str, ...]:
        whole, half = found.whole[name], found.half.get(name)
        return (
            KINDS[name].label,
            f"{whole.counts.answered_bytes / place.bytes:.2f}" if KINDS[name].remote else NONE,
            str(whole.counts.requests) if KINDS[name].remote else NONE,
            f"{half.answered_bytes / place.bytes:.2f}" if half else NONE,
            f"{whole.memory / 1e6:.0f}",
        )

    return Table(
        title="Traffic and memory",
        columns=("", "fetched in an epoch", "requests", "fetched from the middle", "memory, MB"),
        rows=tuple(row(name) for name in _present(found)),
        note="Fetched: bytes that the server sent, as a multiple of all images' bytes, in one cold epoch, and when "
        "beginning in the middle of an epoch with nothing on the disk. Memory: the most that a reader and its workers "
        "took above what it took when idle; pages that they share count once.",
    )


def _pixels_table(found: Measured) -> Table:
    names = [name for name in _present(found) if found.timed[name].get(Pass.PIXELS_COLD)]

    def rate(turns: Sequence[Outcome]) -> str:
        return _spread([turn.images / turn.seconds for turn in turns]) if turns else NONE

    def row(name: str) -> tuple[str, ...]:
        cold, warm = (found.timed[name][how] for how in (Pass.PIXELS_COLD, Pass.PIXELS_WARM))
        cpu = statistics.median(turn.cpu / turn.images for turn in warm or cold)
        return KINDS[name].label, rate(cold), rate(warm), f"{1000 * cpu:.2f}"

    return Table(
        title="Decoded, 512 x 512",
        columns=("", "cold, images/s", "warm, images/s", "CPU an image, ms"),
        rows=tuple(map(row, names)),
        note="Batches of uint8 tensors in the training process. The peers' samples are decoded with Pillow in their "
        "workers, as their users would. CPU time: warm, where there is a cache.",
    )


def _waiting_table(waited: Sequence[Waited]) -> Table:
    return Table(
        title="A training run's wait for data",
        columns=("", "images/s", "waiting, of a step's time", "in the first steps"),
        rows=tuple(
            (one.label, f"{one.images_per_second:.0f}", f"{one.share:.1%}", f"{one.share_at_first:.1%}")
            for one in waited
        ),
        note="`starling run` on one local node with one CPU thread, on the same images in the same server, from a cold "
        "cache; what the training loop itself says.",
    )


def _spread(rates: Sequence[float]) -> str:
    """`median (least-most)`, in whole images a second."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"


def _present(found: Measured) -> list[str]:
    return [name for name in KINDS if name in found.timed]


def _notes(found: Measured) -> tuple[str, ...]:
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    pins = [line.replace("==", " ") for line in lines if "==" in line]
    left_out = [f"{KINDS[name].label} is missing: {reason}" for name, reason in found.failed.items()]
    return (
        f"Of the peers: {', '.join(pins)}; in an environment of their own. Each reads its own form of the same images: "
        "ten tar files, MDS shards or chunks of 20 MB, or one object an image. Their workers hand only counts over to "
        "the training process where nothing is decoded, which spares them copying the bytes.",
        "Two peers would not run as they are: litdata has no setting for a server without TLS, so its client's options "
        "are patched; mosaicml-streaming must forget the connection that it made before its workers are forked, or "
        "they read each other's answers.",
        "Every reader's first epoch is compared with the images' checksums. The server, the readers and the page cache "
        "share one machine: no real store is so near, and none takes its clients' CPU time.",
        "Starling writes what it fetches to the cache and checks every image; the table has ranged GETs that are "
        "written to files as well.",
        *left_out,
    )
