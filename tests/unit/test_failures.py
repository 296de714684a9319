"""When trying again is right, when a node is at fault, and when the run has failed."""

from __future__ import annotations

import pytest

from starling.infra.records import Failure
from starling.trainer.failures import Judgement, judge


def failure(round_: int, node: str, step: int = 5, *, fatal: bool = False, machine: bool = False) -> Failure:
    return Failure(at=round_, node=node, rank=0, round=round_, step=step, error="e", fatal=fatal, machine=machine)


def rounds(*nodes: str, machine: bool = False) -> list[Failure]:
    """One failed round after the other at one step, each of the nodes named in it."""
    return [failure(number, node, machine=machine) for number, who in enumerate(nodes) for node in who]


@pytest.mark.parametrize(
    ("failures", "others", "expected"),
    [
        (rounds("a", "a"), True, Judgement.TRY_AGAIN),
        ([failure(0, "a", fatal=True)], True, Judgement.HOPELESS),
        ([failure(0, "a", 5), failure(1, "a", 5), failure(2, "a", 6)], True, Judgement.TRY_AGAIN),
        (rounds("abc", "abc", "abc"), True, Judgement.HOPELESS),
        (rounds("abc", "abc", "a"), True, Judgement.HOPELESS),
        (rounds("a", "a", "a"), True, Judgement.NODE_UNFIT),
        (rounds("a", "a", "a", "b"), True, Judgement.HOPELESS),
        (rounds("a", "a", "a"), False, Judgement.HOPELESS),
        (rounds("a", "a", "a", machine=True), False, Judgement.NODE_UNFIT),
        (rounds("a", "a", "a", "b", machine=True), False, Judgement.HOPELESS),
    ],
)
def test_judgement(failures: list[Failure], others: bool, expected: Judgement) -> None:
    assert judge(failures, others=others) is expected
