"""The emulated cloud: moto's server in this process on a free loopback port, with what moto lacks put beside it.

    with EmulatedCloud() as cloud:
        os.environ.update(cloud.environment)                          # any AWS client now talks to it
        cloud.capacity.set("g5.xlarge", "us-east-1a", "spot", 2)      # at most two at once; "*" fits anything
        cloud.fail("CreateFleet", "RequestLimitExceeded", times=3)
        cloud.interrupt(instance_id, notice_seconds=120)
        assert cloud.calls["DescribeInstances"] <= 1

Instances are only records here; `hypervisor.py` gives them processes. moto's state belongs to the process: one cloud at
a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto.backends import get_backend
from moto.core.model_instances import reset_model_data
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from starling.infra.records import Market
from starling.infra.region.buckets import BucketMirror
from starling.infra.region.calls import Call
from starling.infra.region.ec2 import Ec2Response
from starling.infra.region.events import tell_interruption, tell_rebalance, tell_state
from starling.infra.region.experiments import new_interruptions
from starling.infra.region.faults import Fault, Faults
from starling.infra.region.gateway import Gateway
from starling.infra.region.images import publish_images
from starling.infra.region.machines import LIVING, all_machines, pool_of, tags_of
from starling.infra.region.pools import Capacity, Quotas
from starling.infra.region.prices import DEFAULT_FILE, PriceBook
from starling.infra.region.products import REGIONS, ProductsResponse
from starling.infra.region.quotas import QuotasResponse
from starling.infra.region.roles import RolesResponse
from starling.infra.region.s3_server import S3Server
from starling.infra.region.stacks import teach_cloudformation

TICK_SECONDS = 0.05
TAKEN = ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Instance terminated by EC2 Spot")
POWERED_OFF = (
    "Client.InstanceInitiatedShutdown",
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
)
LOST = ("Server.InternalError", "Server.InternalError: Internal error on launch")

_MORE_FILTERS = {"instance-lifecycle": "lifecycle", "client-token": "client_token"}
"""Filters of DescribeInstances that moto has not got -> the machine's attribute."""
_LOAD_IMAGES = "MOTO_EC2_LOAD_DEFAULT_AMIS"

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineView:
    """One instance at a moment."""

    id: str
    type: str
    zone: str
    market: Market
    state: str
    reason: str
    """Code of the state's reason, such as Server.SpotInstanceTermination; empty while it runs."""
    tags: dict[str, str]
    user_data: str | None
    """As given, decoded."""
    launched_at: float
    address: str
    profile: str | None
    """Name of the instance profile."""
    image: str

    @property
    def alive(self) -> bool:
        return self.state in LIVING


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """What an instance has been told."""

    taken_at: float | None = None
    rebalance_at: float | None = None


class EmulatedCloud:
    """A context manager; thread-safe."""

    def __init__(self, *, region: str = "us-east-1", s3: S3Server | None = None, prices: Path = DEFAULT_FILE) -> None:
        """With `s3`, buckets made by CloudFormation are made there too, and `environment` leads S3 clients to it."""
        self.region = region
        self.capacity = Capacity()
        self.quotas = Quotas()
        self.prices = PriceBook(prices)
        self.lock = threading.RLock()
        self.console: Callable[[str], str] = lambda _instance_id: ""
        """Where GetConsoleOutput gets its text."""
        self._s3 = s3
        self._faults = Faults()
        self._mirror = BucketMirror(s3) if s3 is not None else None
        self._warned: dict[str, Warned] = {}
        self._states: dict[str, str] = {}
        self._experiments: set[str] = set()
        self._stop = threading.Event()
        self._stack = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """What leads the AWS clients of a process here, whatever else is configured. AWS_PROFILE must not be set."""
        named = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "AKIAEMULATEDCLOUD000",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self._s3 is None:
            return named
        return named | {"AWS_ENDPOINT_URL_S3": self._s3.endpoint_url} | self._s3.environment

    @property
    def calls(self) -> Counter[str]:
        """How often each action was called so far."""
        return self._gateway.calls

    def forget_fleets(self, *, forget: bool = True) -> None:
        """From now on a CreateFleet whose token was used before is answered with the fleet's id alone: what came of it
        DescribeFleets tells."""
        self._gateway.tokens.terse = forget

    def now(self) -> float:
        return time.time()

    def fail(
        self,
        action: str,
        code: str,
        *,
        times: int | None = None,
        seconds: float | None = None,
        message: str = "",
        after: bool = False,
    ) -> None:
        """Answer calls of this action (`*` fits any part) with an error: so often, or for so long, or for ever. With
        `after` the call is done all the same, and only its answer is lost."""
        with self.lock:
            self._faults.add(
                Fault(
                    action=action,
                    code=code,
                    message=message,
                    times=float("inf") if times is None else times,
                    until=float("inf") if seconds is None else self.now() + seconds,
                    after=after,
                )
            )

    def throttle(self, seconds: float) -> None:
        """Refuse every call for a while."""
        self.fail("*", "RequestLimitExceeded", seconds=seconds)

    def heal(self) -> None:
        """Forget all faults."""
        with self.lock:
            self._faults.clear()

    def instances(self) -> list[MachineView]:
        """All there are and were, in every region, oldest first."""
        with self.lock:
            return sorted(map(_view, all_machines()), key=lambda each: (each.launched_at, each.id))

    def warned(self, instance_id: str) -> Warned:
        return self._warned.get(instance_id, Warned())

    def interrupt(self, instance_id: str, notice_seconds: float | None = 120.0) -> None:
        """Announce that an instance will be taken, and take it then; None takes it at once, without a word."""
        with self.lock:
            machine = _machine(instance_id)
            if notice_seconds is None:
                self._take(machine)
            elif self.warned(instance_id).taken_at is None:
                known = self.warned(instance_id)
                self._warned[instance_id] = Warned(
                    taken_at=self.now() + notice_seconds, rebalance_at=known.rebalance_at
                )
                tell_interruption(machine)

    def recommend_rebalance(self, instance_id: str) -> None:
        with self.lock:
            known = self.warned(instance_id)
            self._warned[instance_id] = Warned(taken_at=known.taken_at, rebalance_at=self.now())
            tell_rebalance(_machine(instance_id))

    def powered_off(self, instance_id: str) -> None:
        """The machine shut itself down: by its shutdown behaviour it is terminated or stopped."""
        with self.lock:
            machine = _machine(instance_id)
            if machine.state not in LIVING:
                return
            if machine.instance_initiated_shutdown_behavior == "terminate":
                _end(machine, *POWERED_OFF)
            else:
                machine.stop()
                machine.state_reason = StateReason(POWERED_OFF[1], POWERED_OFF[0])

    def __enter__(self) -> Self:
        if not _one_at_a_time.acquire(blocking=False):
            raise RuntimeError("another emulated cloud runs in this process; moto can keep but one")
        with ExitStack() as stack:
            stack.callback(_one_at_a_time.release)
            stack.enter_context(_without_images())
            _reset()
            stack.callback(_reset)
            for region in REGIONS:
                publish_images(region)
            filter_dict_attribute_mapping.update(_MORE_FILTERS)
            teach_cloudformation()
            self._gateway = self._make_gateway()
            server = make_server("127.0.0.1", 0, self._gateway, threaded=True, request_handler=_QuietHandler)
            server.daemon_threads = True  # type: ignore[attr-defined]
            self.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
            stack.callback(server.server_close)
            stack.enter_context(_in_thread("cloud", lambda: server.serve_forever(TICK_SECONDS), server.shutdown))
            stack.enter_context(_in_thread("cloud-time", self._tick, self._stop.set))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _make_gateway(self) -> Gateway:
        handlers = {
            "ec2": lambda: Ec2Response(self),
            "pricing": lambda: ProductsResponse(self.prices),
            "iam": RolesResponse,
            "servicequotas": lambda: QuotasResponse(self.quotas),
        }
        return Gateway(handlers, lock=self.lock, faults=self._faults, now=self.now, afterwards=self._after_call)

    def _after_call(self, call: Call) -> None:
        if self._mirror is not None and call.service in ("cloudformation", "s3"):
            self._mirror.make_missing()
        if call.service == "ec2":
            self._tell_changes()
        if call.service == "fis":
            for instance_id, seconds in new_interruptions(self._experiments):
                self.recommend_rebalance(instance_id)
                self.interrupt(instance_id, seconds)

    def _tick(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            with self.lock:
                self._take_due()
                self._tell_changes()

    def _take_due(self) -> None:
        now = self.now()
        for instance_id, warned in list(self._warned.items()):
            if warned.taken_at is not None and warned.taken_at <= now:
                machine = _machine(instance_id)
                if machine.state in LIVING:
                    self._take(machine)

    def _take(self, machine: Instance) -> None:
        _end(machine, *(TAKEN if pool_of(machine).market is Market.SPOT else LOST))

    def _tell_changes(self) -> None:
        for machine in all_machines():
            known = self._states.get(machine.id)
            if known == machine.state:
                continue
            self._states[machine.id] = machine.state
            if known is None:
                tell_state(machine, "pending")
            elif machine.state == "terminated":
                tell_state(machine, "shutting-down")
            tell_state(machine, machine.state)


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class' name for it
        """A line for every call would drown everything else; `calls` counts them."""


@contextmanager
def _in_thread(name: str, work: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


@contextmanager
def _without_images() -> Iterator[None]:
    """moto would make 1,301 images in every region, for a third of a second each; `images.py` makes those we need."""
    before = os.environ.get(_LOAD_IMAGES)
    os.environ[_LOAD_IMAGES] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_LOAD_IMAGES]
        else:
            os.environ[_LOAD_IMAGES] = before


def _reset() -> None:
    """Forget everything that the services we use know."""
    for service in ("ec2", "iam", "sts", "ssm", "cloudformation", "sqs", "events", "s3", "servicequotas", "fis"):
        get_backend(service).reset()  # type: ignore[call-overload]
    reset_model_data()


def _machine(instance_id: str) -> Instance:
    for machine in all_machines():
        if machine.id == instance_id:
            return machine
    raise KeyError(instance_id)


def _end(machine: Instance, code: str, message: str) -> None:
    machine.terminate()
    machine.state_reason = StateReason(message, code)
    machine._reason = code if code == TAKEN[0] else machine._reason


def _view(machine: Instance) -> MachineView:
    profile = machine.ec2_backend.iam_instance_profile_associations.get(machine.id)
    return MachineView(
        id=machine.id,
        type=machine.instance_type,
        zone=str(machine.availability_zone),
        market=pool_of(machine).market,
        state=machine.state,
        reason=machine.state_reason.code,
        tags=tags_of(machine),
        user_data=machine.user_data.decode() if machine.user_data is not None else None,
        launched_at=machine.launch_time.timestamp(),
        address=str(machine.private_ip or ""),
        profile=profile.iam_instance_profile.name if profile else None,
        image=str(machine.image_id),
    )
