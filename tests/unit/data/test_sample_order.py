from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starling.trainer.data.order import epoch_order, eval_batches, shard_samples, steps_per_epoch

SHARDS = st.sampled_from([1, 2, 4, 8, 16])
SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 2**40)


def step(n: int, global_batch: int, shards: int, seed: int, number: int) -> list[tuple[int, float]]:
    """One step's whole batch, put together from its shards."""
    parts = [shard_samples(n, global_batch, shards, seed, number, shard) for shard in range(shards)]
    assert {(len(indices), len(weights)) for indices, weights in parts} == {(global_batch // shards,) * 2}
    return [pair for indices, weights in parts for pair in zip(indices, weights, strict=True)]


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, per_shard=st.integers(1, 9), seed=SEEDS, epoch=st.integers(0, 5))
def test_every_sample_counts_exactly_once_in_every_epoch(
    n: int, shards: int, per_shard: int, seed: int, epoch: int
) -> None:
    steps = steps_per_epoch(n, shards * per_shard)
    pairs = [
        pair
        for number in range(epoch * steps, (epoch + 1) * steps)
        for pair in step(n, shards * per_shard, shards, seed, number)
    ]
    assert Counter(index for index, weight in pairs if weight == 1.0) == Counter(range(n))
    assert {weight for _, weight in pairs} <= {0.0, 1.0}
    assert all(0 <= index < n for index, _ in pairs)


@settings(deadline=None)
@given(n=SIZES, per_shard=st.integers(1, 9), seed=SEEDS, number=st.integers(0, 400))
def test_a_global_batch_does_not_depend_on_how_many_shards_it_is_cut_into(
    n: int, per_shard: int, seed: int, number: int
) -> None:
    whole = step(n, 16 * per_shard, 1, seed, number)
    assert all(step(n, 16 * per_shard, shards, seed, number) == whole for shards in (2, 4, 8, 16))


@settings(deadline=None)
@given(n=SIZES, global_batch=st.integers(1, 400), seed=SEEDS)
def test_the_tail_is_filled_from_the_start_of_the_same_epoch(n: int, global_batch: int, seed: int) -> None:
    last = steps_per_epoch(n, global_batch) - 1
    order = epoch_order(n, seed, 0).tolist()
    filling = [index for index, weight in step(n, global_batch, 1, seed, last) if weight == 0.0]
    assert filling == [order[i % n] for i in range(len(filling))]


def test_steps_are_rounded_up() -> None:
    assert [steps_per_epoch(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]


def test_orders_are_pure_and_differ_between_seeds_and_epochs() -> None:
    orders = [tuple(epoch_order(100, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert orders == [tuple(epoch_order(100, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)]


def test_the_order_stays_what_it_was_in_the_first_release() -> None:
    assert epoch_order(12, seed=7, epoch=3).tolist() == [4, 5, 0, 7, 9, 2, 11, 3, 10, 1, 6, 8]


def test_changing_a_returned_order_changes_nothing() -> None:
    before = shard_samples(50, 10, 2, 0, 0, 1)
    epoch_order(50, 0, 0).zero_()
    assert shard_samples(50, 10, 2, 0, 0, 1) == before


@settings(deadline=None)
@given(n=SIZES, shards=SHARDS, batch=st.integers(1, 40))
def test_evaluation_counts_every_sample_once_in_equally_many_equal_batches(n: int, shards: int, batch: int) -> None:
    parts = [list(eval_batches(n, shards, shard, batch)) for shard in range(shards)]
    assert len({len(part) for part in parts}) == 1
    assert {(len(indices), len(weights)) for part in parts for indices, weights in part} == {(batch, batch)}
    pairs = [pair for part in parts for indices, weights in part for pair in zip(indices, weights, strict=True)]
    assert [index for index, weight in pairs if weight == 1.0] == list(range(n))
    assert all(0 <= index < n for index, _ in pairs)


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
        shard_samples(n, global_batch, shards, 0, 0, shard)
