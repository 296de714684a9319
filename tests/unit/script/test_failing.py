"""When a script that fails is tried again, when its node is at fault, and when it is given up."""

from __future__ import annotations

from starling.infra.records import Failure
from starling.trainer.failures import Judgement
from starling.trainer.script.failing import judge_script


def failures(*contents: str, nodes: str = "", fatal: bool = False) -> list[Failure]:
    """One failed round after the other, each beginning with this content; `nodes`: who failed, if not always one."""
    return [
        Failure(at=1.0, node=node, rank=0, round=number, step=0, error="e", content=content, fatal=fatal)
        for number, (content, node) in enumerate(zip(contents, nodes or "a" * len(contents), strict=True))
    ]


def test_a_script_is_given_up_after_three_failures_that_began_alike() -> None:
    assert judge_script(failures("a", "a"), others=False) is Judgement.TRY_AGAIN
    assert judge_script(failures("a", "a", "a"), others=False) is Judgement.HOPELESS
    assert judge_script(failures("", "b", "b", "b"), others=False) is Judgement.HOPELESS


def test_a_script_that_gets_further_each_time_is_not_given_up() -> None:
    assert judge_script(failures("a", "b", "c", "d"), others=False) is Judgement.TRY_AGAIN
    assert judge_script(failures("a", "a", "b", "b"), others=False) is Judgement.TRY_AGAIN
    assert judge_script(failures("a", "a", "b", "a"), others=False) is Judgement.TRY_AGAIN, "in a row"


def test_several_failures_of_one_round_count_once() -> None:
    twice = [*failures("a", "a"), *failures("a", "a")]
    assert judge_script(twice, others=False) is Judgement.TRY_AGAIN


def test_what_trying_again_cannot_help_is_not_tried_again() -> None:
    assert judge_script(failures("a", fatal=True), others=True) is Judgement.HOPELESS
    assert judge_script([*failures("a", fatal=True), *failures("b")], others=True) is Judgement.HOPELESS


def test_a_node_that_fails_alone_is_at_fault_unless_its_replacement_fails_too() -> None:
    assert judge_script(failures("a", "a", "a", nodes="xxx"), others=True) is Judgement.NODE_UNFIT
    assert judge_script(failures("a", "a", "a", nodes="xyx"), others=True) is Judgement.HOPELESS
    assert judge_script(failures("a", "a", "a", "a", nodes="xxxy"), others=True) is Judgement.HOPELESS


def test_a_node_is_judged_by_what_began_alike_only() -> None:
    assert judge_script(failures("a", "b", "b", "b", nodes="yxxx"), others=True) is Judgement.NODE_UNFIT
