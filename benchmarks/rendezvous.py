"""How the rendezvous scales: store calls, lost races and times, at 4, 28 and 256 members."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # so that the file can be run by its path as well

from benchmarks.counting_store import Calls, CountingStore, MemoryStore  # noqa: E402
from benchmarks.report import Options, Report, Table, main  # noqa: E402
from starling.infra.store import open_store  # noqa: E402
from starling.trainer.rendezvous import Settings, StoreRendezvous  # noqa: E402

PRICES = {"put": 0.005 / 1000, "list": 0.005 / 1000, "get": 0.0004 / 1000}
"""US dollars a request: S3 Standard, us-east-1, list prices as of 2026-11. Deleting is free."""
LATENCY = 0.030
"""Seconds a request to S3 takes, about."""
FOLDER, BUCKET = "folder", f"bucket {LATENCY * 1000:.0f} ms away"
MOST_IN_FOLDER = 28
"""A folder's calls are the local kernel's work: with more members in one process they would measure that."""
NOTICE = 0.05
"""Seconds within which survivors notice that a peer is gone: their connections are closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One group's life."""

    store: str
    members: int
    lost: int
    form: float
    """Seconds until the last member is in."""
    form_calls: Calls
    reform: float
    """Seconds from the loss until the last survivor is in the new round."""
    reform_calls: Calls
    watch: float
    """Seconds that it was watched while nothing happened."""
    watch_calls: Calls

    @property
    def node_hour(self) -> float:
        """US dollars at PRICES, while nothing happens."""
        calls = self.watch_calls
        dollars = PRICES["get"] * calls.get + PRICES["put"] * calls.put + PRICES["list"] * calls.list
        return dollars / self.watch / self.members * 3600


def measure(options: Options) -> Report:
    sizes, watch = ((4, 12), 4.0) if options.quick else ((4, 28, 256), 20.0)
    sys.setswitchinterval(0.02)  # or hundreds of threads spend the time asking each other for the interpreter
    outcomes = [_live(FOLDER, members, watch) for members in sizes if members <= MOST_IN_FOLDER]
    outcomes += [_live(BUCKET, members, watch) for members in sizes]
    largest = outcomes[-1]
    return Report(
        title="The rendezvous, by size",
        question=(
            "Members of one group, each a real StoreRendezvous on a thread of one process, over a folder and over a "
            "store in memory that takes as long as a bucket. They form a round, train, lose some, and form another."
        ),
        tables=(_times(outcomes), _steady(outcomes)),
        figures={
            "largest_group_members": float(largest.members),
            "largest_group_form_s": largest.form,
            "largest_group_reform_s": largest.reform,
            "largest_group_dollars_per_node_hour": largest.node_hour,
            "largest_group_calls_per_node_second": largest.watch_calls.total / largest.watch / largest.members,
        },
        notes=_NOTES,
    )


def _live(kind: str, size: int, watch: float) -> Outcome:
    lost = max(1, size // 9)
    print(f"{size} members, {kind}")
    with tempfile.TemporaryDirectory(prefix="rendezvous-") as folder:
        store = CountingStore(open_store(folder)) if kind == FOLDER else CountingStore(MemoryStore(), LATENCY)
        return _live_in(store, kind, size, lost, watch)


def _live_in(store: CountingStore, kind: str, size: int, lost: int, watch: float) -> Outcome:
    with _members(store, size) as group:
        began = time.monotonic()
        _each(group, lambda member: member.next_rendezvous())
        formed_at = time.monotonic()
        form, form_calls = formed_at - began, store.take()
        time.sleep(watch)
        watched, watch_calls = time.monotonic() - formed_at, store.take()
        victims = random.Random(0).sample(range(size), lost)
        survivors = [member for rank, member in enumerate(group) if rank not in victims]
        began = time.monotonic()
        for rank in victims:
            group[rank].vanish()
        _each(survivors, _notice_and_form)
        reform, reform_calls = time.monotonic() - began, store.take()
        assert {len(member.members) for member in survivors} == {size - lost}
    return Outcome(
        store=kind,
        members=size,
        lost=lost,
        form=form,
        form_calls=form_calls,
        reform=reform,
        reform_calls=reform_calls,
        watch=watched,
        watch_calls=watch_calls,
    )


@contextmanager
def _members(store: CountingStore, size: int) -> Iterator[list[StoreRendezvous]]:
    settings = Settings(least=1, most=size, window=600)
    group = [StoreRendezvous(store, "rendezvous/r", "r", "127.0.0.1", settings) for _ in range(size)]
    try:
        yield group
    finally:
        _each(group, lambda member: member.vanish())


def _each(members: Sequence[StoreRendezvous], do: Callable[[StoreRendezvous], object]) -> None:
    with ThreadPoolExecutor(len(members)) as pool:
        list(pool.map(do, members))


def _notice_and_form(member: StoreRendezvous) -> None:
    time.sleep(random.uniform(0, NOTICE))
    member.next_rendezvous()


def _times(outcomes: Sequence[Outcome]) -> Table:
    return Table(
        title="Forming and re-forming",
        columns=(
            *("store", "members", "form, s", "calls a member", "lost races", "members lost", "re-form, s"),
            *("calls a survivor", "lost races"),
        ),
        rows=tuple(
            (
                o.store,
                str(o.members),
                f"{o.form:.2f}",
                f"{o.form_calls.total / o.members:.1f}",
                str(o.form_calls.conflicts),
                str(o.lost),
                f"{o.reform:.2f}",
                f"{o.reform_calls.total / (o.members - o.lost):.1f}",
                str(o.reform_calls.conflicts),
            )
            for o in outcomes
        ),
        note="All begin at the same moment. A lost race is a conditional write that somebody else was quicker than.",
    )


def _steady(outcomes: Sequence[Outcome]) -> Table:
    def rate(outcome: Outcome, count: int) -> str:
        return f"{count / outcome.watch / outcome.members:.2f}"

    return Table(
        title="While training runs: store calls per node and second",
        columns=("store", "members", "GET", "PUT", "LIST", "all members together", "$ a node-hour on S3"),
        rows=tuple(
            (
                o.store,
                str(o.members),
                rate(o, o.watch_calls.get),
                rate(o, o.watch_calls.put),
                rate(o, o.watch_calls.list),
                f"{o.watch_calls.total / o.watch:.0f}",
                f"{o.node_hour:.4f}",
            )
            for o in outcomes
        ),
        note=f"At S3's list prices: {', '.join(f'{k.upper()} ${p * 1000:g}' for k, p in PRICES.items())} per 1,000.",
    )


_NOTES = (
    "One Python process does the work of all members here: at 256 its two cores, not the store, take most of the time.",
    "Nothing is transferred between the members themselves except the answers of their pulses.",
)


if __name__ == "__main__":
    sys.exit(main(measure))
