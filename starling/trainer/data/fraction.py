"""A share of a training split that is the same everywhere, and part of every larger share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def stratified_share(keys: Sequence[str], labels: Sequence[int], fraction: float) -> list[int]:
    """Positions, ascending, of `fraction` (0 to 1) of every class's samples, at least one of each.

    In each class those whose key's SHA-256 is smallest: it depends on no order, no seed and no other class, and a
    smaller fraction's samples are among a larger one's.
    """
    of_class: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        of_class.setdefault(label, []).append(position)
    chosen: list[int] = []
    for members in of_class.values():
        by_hash = sorted(members, key=lambda position: hashlib.sha256(keys[position].encode()).digest())
        chosen += by_hash[: max(1, round(len(members) * fraction))]
    return sorted(chosen)
