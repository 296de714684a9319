"""`python -m starling.trainer.script --job job.json`: supervises a script of the user's on one node.

Exit codes: 0 the run has a verdict, 10 this node was asked to leave and what counts is committed, 11 this node is
unfit (reason in unfit.txt); anything else is a crash.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from torch.distributed.elastic.rendezvous import RendezvousClosedError

from starling.infra import layout
from starling.infra.errors import StarlingError
from starling.infra.processes import die_with_parent
from starling.infra.store import open_store
from starling.infra.supervision import EXIT_LEFT, EXIT_VERDICT
from starling.trainer.control import Control, Request
from starling.trainer.rendezvous import RendezvousCancelled, Settings, StoreRendezvous
from starling.trainer.script.job import ScriptJob
from starling.trainer.script.supervisor import ScriptSupervisor

JOIN_TIMEOUT = 7 * 24 * 3600.0
"""Seconds to wait for a group. The agent, not the rendezvous, decides when a node has been idle for too long."""

log = logging.getLogger(__name__)


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, required=True, help="job.json as the node's agent wrote it")
    job = ScriptJob.read(parser.parse_args().job)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(levelname)s %(message)s")
    os.environ.update(_environment(job))
    try:
        return _supervise(job)
    except StarlingError as error:
        log.error("%s", error)
        return 1


def _supervise(job: ScriptJob) -> int:
    store = open_store(job.store_uri)
    control = Control(job.work_dir)
    rendezvous = StoreRendezvous(
        store,
        layout.rendezvous(job.run, job.incarnation),
        job.run,
        job.address,
        Settings(least=job.min_nodes, most=job.max_nodes, join_timeout=JOIN_TIMEOUT),
        label=job.node,
        cancelled=lambda: control.is_asked(Request.LEAVE) or control.is_asked(Request.STOP),
    )
    try:
        return ScriptSupervisor(job, store, rendezvous).serve()
    except RendezvousClosedError:
        return EXIT_VERDICT
    except RendezvousCancelled:
        return EXIT_LEFT
    finally:
        rendezvous.leave()


def _environment(job: ScriptJob) -> dict[str, str]:
    # All nodes of a run have the same number of ranks: no exchange over the store is needed to number them.
    settings = {"TORCH_ELASTIC_WORKER_IDENTICAL": "1"}
    if job.ranks_per_node > 1 and "OMP_NUM_THREADS" not in os.environ:
        settings["OMP_NUM_THREADS"] = "1"  # as torchrun
    return settings


if __name__ == "__main__":
    sys.exit(main())
