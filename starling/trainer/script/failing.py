"""What is recorded when a script fails by itself, and what failing again and again means."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from itertools import takewhile

from starling.infra.records import Failure
from starling.trainer.failures import Judgement, judge
from starling.trainer.script.job import ScriptJob
from starling.trainer.script.output import ScriptOutput


def judge_script(failures: list[Failure], *, others: bool) -> Judgement:
    """What failures like these (oldest first) mean; `others`: whether the run has, or may have, more than one node.

    Nobody but the script knows its steps, so it is progress if a round began with another content of the folder: only
    the last rounds in a row that began alike are judged, as the trainer's own are.
    """
    by_round = sorted(failures, key=lambda failure: failure.round)
    alike = [*takewhile(lambda failure: failure.content == by_round[-1].content, reversed(by_round))]
    return judge([failure for failure in failures if failure.fatal or failure in alike], others=others)


def describe_failure(
    job: ScriptJob, round_number: int, content: str, codes: Mapping[int, int | None], output: ScriptOutput
) -> Failure:
    """From the process that failed: its exit code, and the last lines it printed. `content`: what the folder held when
    the round began."""
    local_rank = next(rank for rank, code in codes.items() if code not in (0, None))
    code = codes[local_rank]
    assert code is not None
    lines = output.last_lines(local_rank)
    last = f": {lines[-1].strip()}" if lines else ", without a word"
    return Failure(
        at=time.time(),
        node=job.node,
        rank=local_rank,
        round=round_number,
        step=0,
        error=f"the script {describe_exit(code)}{last}",
        traceback="\n".join(lines) or None,
        content=content,
    )


def describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory?)"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def unkept_failure(job: ScriptJob, round_number: int, content: str, why: str, *, fatal: bool) -> Failure:
    """The script has finished, but the newest snapshot does not hold what it left."""
    return Failure(
        at=time.time(),
        node=job.node,
        rank=0,
        round=round_number,
        step=0,
        error=f"the script has finished, but its last files could not be stored: {why}",
        fatal=fatal,
        content=content,
    )


def stuck_failure(job: ScriptJob, round_number: int, losses: int) -> Failure:
    """Trying again does not help: nobody died, so the network is at fault."""
    return Failure(
        at=time.time(),
        node=job.node,
        rank=0,
        round=round_number,
        step=0,
        error=f"the same nodes lost each other {losses} times in a row, and the script saved nothing between",
        fatal=True,
    )
