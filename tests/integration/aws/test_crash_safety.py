"""A controller that dies after any single call to AWS, or shares its run with another one: never a machine too many,
never one left behind."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from starling.infra.clock import FakeClock
from starling.infra.providers.aws import notices, tags
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.inventory import find_resources
from starling.infra.providers.aws.provider import AwsProvider
from starling.infra.region.cloud import EmulatedCloud, MachineView
from starling.infra.region.pools import Capacity
from starling.infra.store import Store, open_store
from starling.orchestrator.controller import Controller
from starling.orchestrator.reading import RunReader
from starling.orchestrator.runs import create_run, request_stop
from tests.support.account import lead_to
from tests.support.account import set_up as set_up_account
from tests.support.specs import spec

NODES = 2
PROVIDER = {"name": "aws", "instance_types": ["g4dn.xlarge", "g5.xlarge"], "disk": 100, "same_zone": False}
SPEC = spec(
    nodes={"min": 1, "max": NODES, "gpus_per_node": 1, "on_demand_after": "1h"},
    training={"epochs": 1, "global_batch": 64, "exact": False, "optimizer": {"name": "sgd", "lr": 0.1}},
    provider=PROVIDER,
)
SECTION = SPEC.provider.model_dump()
STOPPED_SECONDS = 1600.0
"""After so long without a word from their agents, the nodes of a stopped run are ended from outside."""


class Killed(BaseException):
    """The controller's process dies here."""


class MortalClients(AwsClients):
    """Dies as soon as AWS has answered so many calls: what was asked for has happened, and nobody took note."""

    def __init__(self, clock: FakeClock, lives: int) -> None:
        super().__init__("us-east-1", clock=clock)
        self._lives = itertools.count(lives, -1)

    def _new_session(self) -> botocore.session.Session:
        session = super()._new_session()
        session.register("after-call", self._die_in_time)
        return session

    def _die_in_time(self, **_: Any) -> None:
        if next(self._lives) == 1:
            raise Killed


class World:
    """One run, its store, and any number of controllers that remember nothing of each other."""

    def __init__(self, cloud: EmulatedCloud, store: Store, name: str) -> None:
        self.cloud, self.store, self.name = cloud, store, name
        self.clock = FakeClock(time.time())
        self.run = create_run(store, SPEC, name=name, clock=self.clock).run

    def controller(self, *, lives: int = 1_000_000) -> Controller:
        clients = MortalClients(self.clock, lives)
        provider = AwsProvider(SECTION, self.store.uri, clock=self.clock, clients=clients)
        return Controller(self.store, provider, self.run, self.clock, incarnation=0)

    def launch_all(self, controller: Controller) -> None:
        """Pass after pass, until every slot has a machine that is written down."""
        for _ in range(60):
            controller.one_pass()
            self.clock.advance(5.0)
            if len(self.living()) == NODES and self.settled():
                return
        raise AssertionError(f"{len(self.living())} machines after 60 passes")

    def settled(self) -> bool:
        facts = RunReader(self.store, self.run).facts([])
        return len(facts.nodes) == NODES and all(node.intent.instance_id is not None for node in facts.nodes)

    def end(self, controller: Controller) -> None:
        request_stop(self.store, self.run, "the test is over", self.clock)
        self.clock.advance(STOPPED_SECONDS)
        for _ in range(30):
            if controller.one_pass() is None:
                return
            self.clock.advance(20.0)
        raise AssertionError("the controller has not finished")

    def machines(self) -> list[MachineView]:
        return [machine for machine in self.cloud.instances() if machine.tags.get(tags.RUN) == self.run]

    def living(self) -> list[MachineView]:
        return [machine for machine in self.machines() if machine.alive]

    def check_launched(self) -> None:
        """One machine a node, and no node but the first of each slot."""
        started = Counter(machine.tags[tags.NODE] for machine in self.machines())
        assert started == {f"{self.run}.{slot}.0": 1 for slot in range(NODES)}

    def check_nothing_left(self) -> None:
        left = [found for found in find_resources(AwsClients("us-east-1")) if found.run == self.run]
        assert left == [], "garbage after the run"


@pytest.fixture(scope="module")
def set_up() -> Iterator[EmulatedCloud]:
    with EmulatedCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        lead_to(cloud, patch)
        patch.setattr(notices, "WAIT", 0)  # nobody sends any
        set_up_account()
        yield cloud


@pytest.fixture
def cloud(set_up: EmulatedCloud) -> EmulatedCloud:
    set_up.heal()
    set_up.capacity = Capacity()
    return set_up


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder: Path = tmp_path_factory.mktemp("crashes")
    return open_store(str(folder / "store"))


def test_killed_after_each_single_call_of_a_launch(cloud: EmulatedCloud, store: Store) -> None:
    """Each life of the first controller is one call longer, until it lives to see all its machines."""
    for lives in itertools.count(1):
        world = World(cloud, store, f"mortal-{lives}")
        survived = True
        try:
            world.launch_all(world.controller(lives=lives))
        except Killed:
            survived = False
            world.launch_all(world.controller())
        world.check_launched()
        world.end(world.controller())
        assert world.living() == []
        world.check_nothing_left()
        if survived:
            break
    assert lives > 10, "a launch takes more calls than that: the kills did not happen"


def test_killed_again_and_again(cloud: EmulatedCloud, store: Store) -> None:
    """No controller lives for more than four calls, while one zone is dry and answers get lost."""
    world = World(cloud, store, "short-lived")
    cloud.capacity.set("*", "us-east-1a", "spot", 0)
    cloud.fail("CreateFleet", "InternalError", times=2, after=True)
    for lives in itertools.cycle([9, 12, 15]):
        try:
            world.launch_all(world.controller(lives=lives))
            break
        except Killed:
            world.clock.advance(5.0)
    started = Counter(machine.tags[tags.NODE] for machine in world.machines())
    assert set(started.values()) == {1}
    world.end(world.controller())
    assert world.living() == []
    world.check_nothing_left()


def test_two_controllers_at_once(cloud: EmulatedCloud, store: Store) -> None:
    for attempt in range(3):
        world = World(cloud, store, f"doubled-{attempt}")
        both = [world.controller(), world.controller()]
        with ThreadPoolExecutor(2) as pool:
            for _ in range(4):
                list(pool.map(Controller.one_pass, both))
                world.clock.advance(5.0)
        world.launch_all(both[0])
        world.check_launched()
        request_stop(store, world.run, "the test is over", world.clock)
        with ThreadPoolExecutor(2) as pool:
            world.clock.advance(STOPPED_SECONDS)
            for _ in range(20):
                list(pool.map(Controller.one_pass, both))
                world.clock.advance(20.0)
        assert world.living() == []
        world.check_nothing_left()
