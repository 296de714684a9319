"""`python -m starling.infra.agent --node N --store URI --folder F`: the agent of one node."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from starling.infra.agent.gpus import complaint
from starling.infra.agent.loop import Agent, Settings
from starling.infra.agent.output import LogBuffer
from starling.infra.agent.prepare import prepare
from starling.infra.agent.uplink import Uplink
from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ImdsUnavailable, StarlingError
from starling.infra.imds.client import ImdsClient
from starling.infra.imds.notices import NoticeWatch
from starling.infra.logs import log_to_stderr
from starling.infra.processes import HOME, MARKER, die_with_parent
from starling.infra.store import open_store

IDENTITY_TRIES = 10

_log = logging.getLogger("starling.agent")


def main() -> int:
    die_with_parent()
    log_to_stderr()
    arguments = _parse()
    clock = SystemClock()
    try:
        agent = _build(arguments, clock)
    except StarlingError as error:
        _log.error("%s", error)
        return error.exit_code
    signal.signal(signal.SIGTERM, lambda *_: setattr(agent, "shutdown_asked", True))
    reason = agent.run()
    _log.info("powering off: %s", reason)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="starling.infra.agent", description=__doc__)
    parser.add_argument("--node", required=True, help="the node's id: <run>.<slot>.<generation>")
    parser.add_argument("--store", required=True, help="URI of the run's store")
    parser.add_argument("--folder", required=True, type=Path, help="the node's own folder")
    parser.add_argument("--notice-poll", type=float, default=5.0, help="seconds between two looks for a notice")
    parser.add_argument("--supervisor-module", help="what trains, run as python -m MODULE; default: by the spec")
    return parser.parse_args()


def _build(arguments: argparse.Namespace, clock: Clock) -> Agent:
    store = open_store(arguments.store)
    imds = ImdsClient(clock=clock)
    folder: Path = arguments.folder.resolve()
    settings = Settings(
        node=arguments.node,
        run=arguments.node.rsplit(".", 2)[0],
        folder=folder,
        address=_ask(imds, "meta-data/local-ipv4", clock),
        instance_id=_ask(imds, "meta-data/instance-id", clock),
        supervisor_module=arguments.supervisor_module,
        notice_poll=arguments.notice_poll,
        marks={MARKER: arguments.node, **({HOME: os.environ[HOME]} if HOME in os.environ else {})},
    )
    logs = LogBuffer(folder / "node.log")
    logging.getLogger().addHandler(logs)
    metrics = settings.work.metrics_file
    return Agent(
        settings,
        uplink=Uplink(store, settings.run, settings.node, logs, metrics, clock),
        notices=NoticeWatch(imds),
        logs=logs,
        prepare=partial(prepare, store, settings.node, folder, settings.address, clock, complaint, logs.write),
        clock=clock,
    )


def _ask(imds: ImdsClient, path: str, clock: Clock) -> str:
    """A fact about this machine; its metadata service may need a moment after boot."""
    for _ in range(IDENTITY_TRIES - 1):
        try:
            return imds.get(path) or ""
        except ImdsUnavailable as error:
            _log.warning("%s", error)
            clock.sleep(1.0)
    return imds.get(path) or ""


if __name__ == "__main__":
    sys.exit(main())
