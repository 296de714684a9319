from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from starling.trainer.data.fraction import stratified_share

KEYS = [f"images/{number}.png" for number in range(530)]
LABELS = [0] * 400 + [1] * 100 + [2] * 28 + [3] * 2


@pytest.mark.parametrize("fraction", [1.0, 0.6, 0.1, 0.001])
def test_every_class_gives_its_share_and_none_is_empty(fraction: float) -> None:
    counts = Counter(LABELS[position] for position in stratified_share(KEYS, LABELS, fraction))
    assert counts == {label: max(1, round(size * fraction)) for label, size in Counter(LABELS).items()}


def test_smaller_shares_are_parts_of_larger_ones() -> None:
    shares = [set(stratified_share(KEYS, LABELS, fraction)) for fraction in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert all(smaller < larger for smaller, larger in pairwise(shares))
    assert shares[-1] == set(range(len(KEYS)))


def test_a_share_depends_on_the_keys_and_not_on_their_order() -> None:
    chosen = stratified_share(KEYS, LABELS, 0.3)
    assert chosen == sorted(chosen)
    backwards = stratified_share(KEYS[::-1], LABELS[::-1], 0.3)
    assert {KEYS[::-1][position] for position in backwards} == {KEYS[position] for position in chosen}
    without_others = stratified_share(KEYS[:400], LABELS[:400], 0.3)
    assert without_others == [position for position in chosen if position < 400]
