"""How many calls to AWS a controller makes: all that it takes to launch a run, then five quiet minutes.

The real controller and the real provider, in simulated time, against the emulated cloud; agents only write heartbeats.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from starling.infra import layout
from starling.infra.clock import FakeClock
from starling.infra.providers.aws import notices
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.provider import AwsProvider
from starling.infra.providers.aws.setup import carry_out, plan_setup
from starling.infra.records import NodeIntent, NodeState, NodeStatus, Progress
from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.pools import QUOTA_NAMES
from starling.infra.store import Store, open_store
from starling.orchestrator.controller import Controller
from starling.orchestrator.reading import RunReader
from starling.orchestrator.runs import create_run
from starling.orchestrator.spec import Spec

QUIET_SECONDS = 300.0
HEARTBEAT_SECONDS = 10.0
"""Real agents send one every 2 s. A controller asks AWS more often about nodes that it has not heard for 15 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    nodes: int
    launching: Counter[str]
    """All calls from the first look to the last launch, by operation."""
    quiet: Counter[str]
    """In the quiet time."""

    @property
    def per_half_minute(self) -> float:
        return self.quiet.total() / (QUIET_SECONDS / 30)


def cloud_calls(nodes: int) -> Calls:
    """Launch so many nodes, then watch them train. Raises RuntimeError if they are not all launched."""
    with _cloud() as clients, tempfile.TemporaryDirectory(dir=_quick_folder()) as folder:
        return _measure(open_store(folder), clients, nodes)


def _measure(store: Store, clients: AwsClients, nodes: int) -> Calls:
    clock = FakeClock(time.time())
    spec = _spec(nodes)
    run = create_run(store, spec, name="bench", clock=clock).run
    clients = AwsClients("us-east-1", clock=clock)
    provider = AwsProvider(spec.provider.model_dump(), store.uri, clock=clock, clients=clients)
    controller = Controller(store, provider, run, clock, incarnation=0)
    for _ in range(10):
        controller.one_pass()
        clock.advance(provider.pace.look)
    launching = Counter(clients.calls)
    intents = [node.intent for node in RunReader(store, run).facts([]).nodes]
    if sum(intent.instance_id is not None for intent in intents) != nodes:
        raise RuntimeError(f"not all of {nodes} nodes were launched: {launching}")
    _train(store, intents, clock, controller, 2 * provider.pace.list_calm)  # settles
    clients.calls.clear()
    _train(store, intents, clock, controller, QUIET_SECONDS)
    return Calls(nodes=nodes, launching=launching, quiet=Counter(clients.calls))


def _train(store: Store, intents: list[NodeIntent], clock: FakeClock, controller: Controller, seconds: float) -> None:
    """Let the run train for so long."""
    end, heartbeat = clock.now() + seconds, 0.0
    while clock.now() < end:
        if clock.now() >= heartbeat:
            heartbeat = clock.now() + HEARTBEAT_SECONDS
            for intent in intents:
                store.put(layout.status(intent.node), _status(intent, clock.now()).to_bytes())
        pause = controller.one_pass()
        assert pause is not None, "the run is not over"
        clock.advance(pause)


def _status(intent: NodeIntent, now: float) -> NodeStatus:
    progress = Progress(at=now, step=1, total_steps=9, epoch=0, round=1, world_size=1, rank=0, step_seconds=600.0)
    return NodeStatus(
        node=intent.node,
        run=intent.run,
        state=NodeState.TRAINING,
        at=now,
        booted_at=intent.wanted_at,
        address="10.0.0.1",
        instance_id=intent.instance_id or "",
        progress=progress,
    )


def _spec(nodes: int) -> Spec:
    return Spec.model_validate(
        {
            "name": "bench",
            "command": {"run": ["python", "-m", "train"], "folder": "out"},
            "code": ".",
            "nodes": {"min": 1, "max": nodes, "gpus_per_node": 1},
            "limits": {"budget": 1_000_000.0},
            "provider": {"name": "aws", "instance_types": ["g4dn.xlarge", "g5.xlarge"]},
        }
    )


@contextmanager
def _cloud() -> Iterator[AwsClients]:
    """An account that is set up, and may have any number of machines."""
    nobody_waits = patch.object(notices, "WAIT", 0)  # for messages, of which there are none
    with EmulatedCloud() as cloud, patch.dict(os.environ, cloud.environment), nobody_waits:
        os.environ.pop("AWS_PROFILE", None)
        for quota in QUOTA_NAMES:
            cloud.quotas.set(quota, 1e9)
        clients = AwsClients("us-east-1")
        carry_out(clients, plan_setup(clients, "starling", None), lambda _: None)
        yield clients


def _quick_folder() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None
