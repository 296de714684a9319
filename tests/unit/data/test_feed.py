from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from starling.trainer.data.feed import AHEAD_BATCHES, EXPECTED, Feed, Wanted
from starling.trainer.task import Batch


class Recorded:
    """Samples that remember how they were asked; `pause` seconds a batch, and an error for one entry."""

    def __init__(self, *, pause: float = 0.0, broken: int | None = None, draws: bool = False) -> None:
        self.asked: list[int] = []
        self.expected: list[int] = []
        self.expectations: list[int] = []
        self.threads: set[int] = set()
        self.inside = 0
        self._pause, self._broken, self._draws = pause, broken, draws

    def __len__(self) -> int:
        return 10**6

    def expect(self, entries: Sequence[int]) -> None:
        self.expected += entries
        self.expectations.append(len(entries))

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        self.inside += 1
        assert self.inside == 1, "called by two threads at once"
        assert list(indices) == self.expected[len(self.asked) : len(self.asked) + len(indices)]
        self.threads.add(threading.get_ident())
        time.sleep(self._pause)
        if self._draws:
            torch.rand(1)
        if self._broken in indices:
            raise ZeroDivisionError(f"no entry {self._broken}")
        self.asked += indices
        self.inside -= 1
        return {"x": torch.tensor(indices) + seed}


def wanted(count: int, shards: int = 2, size: int = 4) -> Iterator[Wanted]:
    for number in range(count):
        yield Wanted(number % shards, list(range(number * size, (number + 1) * size)), [1.0] * size, 0)


def feeds_running() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


def test_batches_come_in_order_with_their_weights_and_then_no_more() -> None:
    samples = Recorded()
    with Feed(samples, wanted(40), seed=5) as feed:
        for number in range(40):
            batch, weights = feed.take(number % 2)
            assert batch["x"].tolist() == list(range(number * 4 + 5, number * 4 + 9))
            assert weights.tolist() == [1.0] * 4
        with pytest.raises(LookupError, match="no more batches"):
            feed.take(0)
    assert samples.expected == samples.asked == list(range(160))
    assert feeds_running() == 0


def test_what_is_needed_first_is_expected_first_and_then_a_long_way_ahead() -> None:
    samples = Recorded()
    with Feed(samples, wanted(10_000), seed=0, first=2) as feed:
        feed.take(0)
    assert samples.expectations[0] == 8
    assert sum(samples.expectations[:2]) == EXPECTED


def test_the_next_batches_are_made_while_the_loop_works_but_not_too_many() -> None:
    samples, turn = Recorded(), threading.Lock()
    with Feed(samples, wanted(10_000), seed=0, turn=turn) as feed:
        feed.take(0)
        deadline = time.monotonic() + 20
        while len(samples.asked) < 4 * (1 + AHEAD_BATCHES) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(samples.asked) == 4 * (1 + AHEAD_BATCHES)
        with turn:  # as nobody can make one now, this would wait for ever if it were not there already
            feed.take(1)


def test_waiting_is_measured() -> None:
    spent = 0.0
    with Feed(Recorded(pause=0.05), wanted(4), seed=0) as feed:
        for number in range(4):
            began = time.perf_counter()
            feed.take(number % 2)
            spent += time.perf_counter() - began
        assert feed.waited >= 0.05
        assert spent / 2 < feed.waited <= spent


def test_an_error_comes_with_the_batch_it_belongs_to() -> None:
    with Feed(Recorded(broken=20), wanted(100), seed=0) as feed:
        for number in range(5):
            feed.take(number % 2)
        with pytest.raises(ZeroDivisionError, match="no entry 20"):
            feed.take(1)
    assert feeds_running() == 0


def test_the_loop_and_the_feed_must_agree() -> None:
    with Feed(Recorded(), wanted(4), seed=0) as feed, pytest.raises(ValueError, match="of shard 0, not 1"):
        feed.take(1)


def test_a_feed_ends_while_it_is_full_and_when_nothing_was_taken() -> None:
    with Feed(Recorded(), wanted(100), seed=0):
        pass
    with Feed(Recorded(), wanted(1000), seed=0) as feed:
        feed.take(0)
    assert feeds_running() == 0


def test_samples_that_draw_from_torch_s_generator_are_read_in_the_loop_s_own_thread() -> None:
    samples = Recorded(draws=True)
    with Feed(samples, wanted(8), seed=0) as feed:
        for number in range(8):
            feed.take(number % 2)
    assert samples.threads == {threading.get_ident()}


def test_whoever_holds_the_turn_reads_alone() -> None:
    samples, turn = Recorded(), threading.Lock()
    with Feed(samples, wanted(200), seed=0, turn=turn) as feed:
        feed.take(0)
        with turn:
            before = len(samples.asked)
            time.sleep(0.05)
            assert len(samples.asked) == before < 800
        for number in range(1, 200):
            feed.take(number % 2)
    assert len(samples.asked) == 800
