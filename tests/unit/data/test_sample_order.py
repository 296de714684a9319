from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starling.infra.errors import UsageError
from starling.trainer.data.order import (
    block_order,
    class_counts,
    epoch_order,
    eval_batches,
    eval_steps,
    plain_order,
    shard_samples,
    steps_per_epoch,
)
from starling.trainer.task import Batch

SHARDS = st.sampled_from([1, 2, 4, 8, 16])
SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 2**40)


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, per_shard=st.integers(1, 9), seed=SEEDS)
def test_every_sample_counts_exactly_once_in_every_epoch(n: int, shards: int, per_shard: int, seed: int) -> None:
    order, batch = plain_order(n, seed, 0), shards * per_shard
    counted: Counter[int] = Counter()
    for step in range(steps_per_epoch(n, batch)):
        parts = [shard_samples(order, batch, shards, step, shard) for shard in range(shards)]
        assert {(len(entries), len(weights)) for entries, weights in parts} == {(per_shard, per_shard)}
        pairs = [pair for part in parts for pair in zip(*part, strict=True)]
        assert {weight for _, weight in pairs} <= {0.0, 1.0}
        assert all(0 <= entry < n for entry, _ in pairs)
        fresh = [entry for entry, weight in pairs if weight == 1.0]
        assert len(fresh) == min(batch, n - step * batch)
        counted.update(fresh)
    assert counted == Counter(range(n))


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, per_shard=st.integers(1, 9))
def test_a_shard_reads_only_its_own_stretch_of_the_order(n: int, shards: int, per_shard: int) -> None:
    order = torch.arange(n)
    for shard in range(shards):
        own = range(n * shard // shards, n * (shard + 1) // shards)
        for step in range(steps_per_epoch(n, shards * per_shard)):
            entries, _ = shard_samples(order, shards * per_shard, shards, step, shard)
            assert not own or set(entries) <= set(own)


def test_a_tail_is_filled_with_what_was_read_in_the_step_before() -> None:
    assert shard_samples(torch.arange(10, 17), 4, 1, 1, 0) == ([14, 15, 16, 13], [1.0, 1.0, 1.0, 0.0])


def test_a_shard_with_less_than_a_batch_sees_its_samples_again() -> None:
    assert shard_samples(torch.arange(10, 15), 8, 2, 0, 1) == ([12, 13, 14, 12], [1.0, 1.0, 1.0, 0.0])


def test_steps_are_rounded_up() -> None:
    assert [steps_per_epoch(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]


def test_orders_are_pure_and_differ_between_seeds_and_epochs() -> None:
    files, sizes = torch.arange(100) // 10, torch.full((100,), 10)
    for make in (lambda s, e: plain_order(100, s, e), lambda s, e: block_order(files, sizes, s, e, 200)):
        orders = [tuple(make(seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)]
        assert len(set(orders)) == 4
        assert orders == [tuple(make(seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)]


def test_the_orders_stay_what_they_are() -> None:
    assert plain_order(12, seed=7, epoch=3).tolist() == [4, 5, 0, 7, 9, 2, 11, 3, 10, 1, 6, 8]
    assert block_order([0] * 6 + [1] * 6, [1] * 12, seed=7, epoch=3, block_bytes=4).tolist() == [
        *(9, 7, 6, 8),
        *(11, 1, 10, 0),
        *(5, 2, 4, 3),
    ]


@settings(deadline=None)
@given(files=st.lists(st.integers(0, 9), min_size=1, max_size=200), block=st.integers(1, 50), seed=SEEDS)
def test_a_block_shuffle_takes_every_sample_once_and_few_files_at_a_time(
    files: list[int], block: int, seed: int
) -> None:
    order = block_order(files, [1] * len(files), seed, 0, block).tolist()
    assert sorted(order) == list(range(len(files)))
    in_order = [name for start in range(0, len(order), block) for name in files_of(order[start : start + block], files)]
    # A file may go on in the next block, and is then done: no file is come back to.
    runs = [name for i, name in enumerate(in_order) if i == 0 or in_order[i - 1] != name]
    assert len(runs) <= len(set(files)) + len(order) // block


def files_of(samples: list[int], files: list[int]) -> list[int]:
    return list(dict.fromkeys(files[sample] for sample in samples))


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=60).filter(any), seed=SEEDS)
def test_a_sample_that_is_drawn_several_times_has_as_many_entries(counts: list[int], seed: int) -> None:
    n = len(counts)
    order = block_order([0] * n, [1] * n, seed, 0, 7, torch.tensor(counts)).tolist()
    assert sorted(order) == sorted(sample + n * turn for sample, times in enumerate(counts) for turn in range(times))


def test_occurrences_of_a_sample_lie_within_one_block() -> None:
    counts = torch.tensor([1, 5, 1, 1, 0, 1, 3, 1])
    order = (block_order([0] * 8, [1] * 8, 3, 0, 2, counts) % 8).tolist()
    places = {sample: [i for i, other in enumerate(order) if other == sample] for sample in (1, 6)}
    for found in places.values():
        assert found[-1] - found[0] < 6 + 1, "a block of two samples has 8 entries at most"


def test_the_classes_of_batches_vary_as_much_as_if_samples_were_drawn_at_random() -> None:
    """Over files whose samples come in the order of a hash, which is how `prepare` writes them."""
    draw = torch.Generator().manual_seed(1)
    n, batch = 20_000, 50
    labels = (torch.rand(n, generator=draw) < 0.27).float()
    files, sizes = torch.arange(n) // 300, torch.full((n,), 100_000)

    def spread(order: torch.Tensor) -> float:
        return float(labels[order].view(-1, batch).mean(1).var())

    blocks = sum(spread(block_order(files, sizes, seed, 0)) for seed in range(10))
    plain = sum(spread(plain_order(n, seed, 0)) for seed in range(10))
    assert 0.85 < blocks / plain < 1.15


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=200), seed=SEEDS, strength=st.floats(0, 1))
def test_resampling_moves_every_class_from_its_share_towards_an_equal_one(
    labels: list[int], seed: int, strength: float
) -> None:
    counts = class_counts(labels, seed, 0, strength)
    assert int(counts.sum()) == len(labels)
    classes = sorted(set(labels))
    for label in classes:
        own = counts[torch.tensor(labels) == label]
        natural = labels.count(label)
        assert abs(int(own.sum()) - ((1 - strength) * natural + strength * len(labels) / len(classes))) <= 1
        assert int(own.max()) - int(own.min()) <= 1


def test_which_samples_are_taken_once_more_changes_with_the_epoch_alone() -> None:
    labels = [0] * 90 + [1] * 20
    first, again, next_one = (class_counts(labels, 5, epoch).tolist() for epoch in (0, 0, 1))
    assert first == again != next_one


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, batch=st.integers(1, 40))
def test_evaluation_counts_every_sample_once_in_equally_many_equal_batches(n: int, shards: int, batch: int) -> None:
    parts = [list(eval_batches(n, shards, shard, batch)) for shard in range(shards)]
    assert {len(part) for part in parts} == {eval_steps(n, shards, batch)}
    assert {(len(indices), len(weights)) for part in parts for indices, weights in part} == {(batch, batch)}
    pairs = [pair for part in parts for indices, weights in part for pair in zip(indices, weights, strict=True)]
    assert [index for index, weight in pairs if weight == 1.0] == list(range(n))
    for shard, part in enumerate(parts):
        first = n * shard // shards
        own = range(first, max(first + 1, n * (shard + 1) // shards))
        assert all(index in own for indices, _ in part for index in indices), "filled up with what others read"


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, batch=st.integers(1, 40))
def test_evaluation_ranges_differ_by_one_sample_at_most(n: int, shards: int, batch: int) -> None:
    sizes = [sum(sum(weights) for _, weights in eval_batches(n, shards, shard, batch)) for shard in range(shards)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("n", "global_batch", "shards", "shard", "reason"),
    [
        (0, 8, 2, 0, "no samples"),
        (9, 8, 2, 2, "not one of 2"),
        (9, 8, 2, -1, "not one of 2"),
        (9, 9, 2, 0, "equal shards"),
    ],
)
def test_shards_that_cannot_be_are_refused(n: int, global_batch: int, shards: int, shard: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shard_samples(torch.arange(n), global_batch, shards, 0, shard)


@pytest.mark.parametrize("entries", [torch.arange(3), torch.arange(5), torch.zeros(2, 2)])
def test_an_order_of_another_length_than_the_samples_is_refused(entries: torch.Tensor) -> None:
    class Four:
        def __len__(self) -> int:
            return 4

        def order(self, seed: int, epoch: int) -> torch.Tensor:
            return entries

        def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
            raise NotImplementedError

    with pytest.raises(UsageError, match="one for each of the 4 samples"):
        epoch_order(Four(), 0, 0)
