"""Whether this node can serve the run: computes the same bits as its other nodes, above all."""

from __future__ import annotations

import json
import logging
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from starling.infra import layout
from starling.infra.errors import StarlingError
from starling.infra.store.base import Store
from starling.infra.store.change import first_word
from starling.infra.supervision import EXIT_UNFIT, UNFIT
from starling.trainer.config import Job
from starling.trainer.determinism import device_fingerprint, set_up_device

log = logging.getLogger(__name__)


def check_fitness(store: Store, job: Job) -> str | None:
    """Why this node's fingerprint does not fit the run's; None if it does. The first node's becomes the run's.

    Raises:
        StarlingError: the device asked for is not there.
    """
    mine = _fingerprint_in_child(job)
    first = first_word(store, layout.fingerprint(job.run), json.dumps(mine, sort_keys=True).encode())
    return difference(json.loads(first), mine)


def declare_unfit(work_dir: Path, why: str) -> int:
    """Tell the agent that this node cannot serve the run; returns the exit code to end with."""
    log.error("this node cannot serve the run: %s", why)
    try:
        (work_dir / UNFIT).write_text(why)
    except OSError as error:
        log.error("which cannot even be written down: %s", error)  # the exit code tells the agent all the same
    return EXIT_UNFIT


def difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str | None:
    """What differs between the run's fingerprint and a node's, for people; None if nothing does."""
    differing = sorted(key for key in theirs | mine if theirs.get(key) != mine.get(key))
    if not differing:
        return None
    parts = [f"{key} is {mine.get(key)!r} here and {theirs.get(key)!r} in the run" for key in differing]
    return "cannot compute the same bits as the run so far: " + "; ".join(parts)


def _fingerprint_in_child(job: Job) -> dict[str, Any]:
    """Asked in a process of its own, because looking at a GPU takes memory on it for as long as the process lives."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_fingerprint, args=(sender, job.training.device, job.training.threads_per_rank))
    child.start()
    sender.close()
    try:
        answer: dict[str, Any] = json.loads(receiver.recv_bytes())
    except EOFError as error:
        raise StarlingError("the device check died; see the log") from error
    finally:
        child.join()
    if "error" in answer:
        raise StarlingError(answer["error"])
    return answer


def _send_fingerprint(sender: Connection, choice: str, threads: int) -> None:
    try:
        device = set_up_device(choice, exact=False, threads=threads)
        answer = device_fingerprint(device, threads)
    except StarlingError as error:
        answer = {"error": str(error)}
    sender.send_bytes(json.dumps(answer).encode())
