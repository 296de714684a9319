"""What is recorded when a script fails by itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping

from starling.infra.records import Failure
from starling.trainer.script.job import ScriptJob
from starling.trainer.script.output import ScriptOutput


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
