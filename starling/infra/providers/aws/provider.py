"""Provider of EC2 instances. No state that matters lives here: tags and client tokens tell everything again.

STEPS of a launch: the set-up's outputs and subnets, once in a process; the run's launch template, once; then one
CreateFleet for the node, with the attempt's client token.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import (
    Misconfigured,
    NoCapacity,
    NotThere,
    ProviderError,
    ProviderUnavailable,
    StoreError,
    UsageError,
)
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.choice import AwsChoice
from starling.infra.providers.aws.clients import LONGEST_CALL_SECONDS, AwsClients
from starling.infra.providers.aws.describing import MOST_FILTER_VALUES, in_state, read_instances, tagged
from starling.infra.providers.aws.fleet import bought, client_token, fleet_request, is_silent, wanted
from starling.infra.providers.aws.images import image_setting
from starling.infra.providers.aws.instances import NOT_GONE, machine
from starling.infra.providers.aws.market import Market
from starling.infra.providers.aws.network import reachable, subnets
from starling.infra.providers.aws.notices import NoticeQueue
from starling.infra.providers.aws.rehearsal import rehearse_interruption
from starling.infra.providers.aws.stack import StackOutputs, read_stack
from starling.infra.providers.aws.templates import RunTemplates, TemplatePlan
from starling.infra.providers.base import Launched, Machine, Pace
from starling.infra.records import Market as MarketKind
from starling.infra.records import NodeIntent, Offer

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import CreateFleetResultTypeDef, FleetDataTypeDef

MOST_AT_ONCE = 1000
"""Instances that one TerminateInstances takes."""
PROPAGATION_PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait for a launch template that was made just now to be known everywhere."""
SETTLE_SECONDS = 60.0
ANOTHERS_SECONDS = LONGEST_CALL_SECONDS + SETTLE_SECONDS
"""How long another controller's launch may still come to something: its call may only just have begun, and then the
machine may not be listed at once."""
_REPEATED = ("IdempotentParameterMismatch", "IdempotentInstanceTerminated")
"""The token has been used: by a controller with other settings, or for a machine that is gone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where nodes go: the set-up, and the subnet of each zone."""

    stack: StackOutputs
    subnets: dict[str, str]


class AwsProvider:
    """Sells EC2 instances of one region, for one store. `launch` may be called from several threads at once."""

    name = "aws"
    pace = Pace(look=5.0, list_busy=10.0, list_calm=60.0, settle=SETTLE_SECONDS, boot=900.0, parallel_launches=8)

    def __init__(
        self,
        section: dict[str, Any],
        store_uri: str | None,
        *,
        clock: Clock | None = None,
        clients: AwsClients | None = None,
    ) -> None:
        """`section`: the resolved spec's. With a store URI, only machines that work for that store are shown."""
        self._choice = AwsChoice.from_section(section)
        self._store_uri = store_uri
        self._clock = clock or SystemClock()
        self._clients = clients or AwsClients(self._choice.region, clock=self._clock)
        self._market = Market(self._clients, self._clock)
        self._templates = RunTemplates(self._clients)
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._queue: NoticeQueue | None = None
        self._launched: dict[str, str] = {}
        self._stopped: Counter[tuple[str, int]] = Counter()
        self._mismatched: dict[str, float] = {}
        self._notes_told = 0

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        """Only in zones where nodes can go. What the user should know about them is logged, each thing once."""
        found = self._market.offers(self._choice, gpus, MarketKind(market))
        for note in self._market.notes[self._notes_told :]:
            _log.warning("the market of %s: %s", self._choice.region, note)
            self._notes_told += 1
        with self._looking_again():
            place = self._known_place()
            return reachable(found, place.subnets, place.stack.vpc)

    def launch(self, intent: NodeIntent, store_uri: str) -> Launched:
        with self._looking_again():
            return self._launch_at(self._known_place(), intent, store_uri)

    def list(self, run: str | None = None) -> list[Machine]:
        """Of one run also what the queue of events says, if the set-up has one: two calls in all, and further pages."""
        found = read_instances(
            self._clients, [tagged(tags.PROJECT, tags.OURS), *([tagged(tags.RUN, run)] if run else [])], self._store_uri
        )
        queue = self._notice_queue() if run else None
        if queue is None:
            return [machine(instance, {}, {}) for instance in found]
        queue.look({instance["InstanceId"] for instance in found})
        return [machine(instance, queue.notices, queue.ended) for instance in found]

    def terminate(self, nodes: Sequence[str]) -> None:
        """One look for each 196 nodes and one call for all. What this process launched a moment ago may not be listed
        yet, but is ended as well."""
        just_launched = {self._launched[node] for node in nodes if node in self._launched}
        try:
            self._terminate_ids(self._ids_of(nodes) | just_launched)
        except NotThere:  # one unknown id, and EC2 ends none of them
            self._terminate_ids(self._ids_of(nodes))
        for node in nodes:
            self._launched.pop(node, None)

    def interrupt(self, node: str, notice: float | None) -> None:
        """A notice comes from AWS's Fault Injection Service, two minutes before the end or earlier."""
        living = read_instances(self._clients, [tagged(tags.NODE, node), in_state("running")], self._store_uri)
        if not living:
            raise ProviderError(f"node {node} has no running instance, so it cannot be interrupted")
        if notice is None:
            self._terminate_ids({living[0]["InstanceId"]})
            return
        if living[0].get("InstanceLifecycle") != "spot":
            raise ProviderError(f"node {node} is on demand: AWS interrupts spot instances only; take it without notice")
        instance_id = living[0]["InstanceId"]
        rehearse_interruption(
            self._clients, stack=self._choice.stack, node=node, instance_id=instance_id, notice=notice
        )

    def forget(self, node: str) -> None:
        """Nothing is left of an ended instance but EC2's own record of it."""

    def close(self, run: str) -> None:
        if self._store_uri is not None:
            self._templates.remove(run, self._store_uri)

    @contextmanager
    def _looking_again(self) -> Iterator[None]:
        """A wrong set-up may be mended, by `starling aws setup` or a new subnet: look at it again next time."""
        try:
            yield
        except Misconfigured:
            self._place = None
            raise

    def _launch_at(self, place: Place, intent: NodeIntent, store_uri: str) -> Launched:
        offers = wanted(intent, place.subnets)
        try:
            answer = self._create_fleet(intent, offers, store_uri, place)
        except ProviderError as error:
            if not _was_asked_before(error):
                raise
            return self._launched_before(intent, offers, store_uri, error)
        told = self._told_of(answer["FleetId"], intent.node) if is_silent(answer) else answer
        try:
            instance_id, offer = bought(told, offers, place.subnets, node=intent.node)
        except (NoCapacity, ProviderUnavailable):
            raise  # the one is for certain, and after the other the very same is asked again
        except ProviderError:
            self._stopped[intent.node, intent.attempt] += 1
            raise
        self._launched[intent.node] = instance_id
        return Launched(instance_id=instance_id, offer=offer, at=self._clock.now())

    def _known_place(self) -> Place:
        with self._lock:
            if self._place is None:
                stack = read_stack(self._clients, self._choice.stack)
                self._place = Place(stack=stack, subnets=subnets(self._clients, stack.vpc))
            return self._place

    def _notice_queue(self) -> NoticeQueue | None:
        """None if the set-up has none, or cannot be read: machines are listed all the same."""
        if self._queue is None:
            try:
                url = self._known_place().stack.queue_url
            except ProviderError as error:
                _log.warning("interruption notices are not read: %s", error)
                return None
            self._queue = NoticeQueue(self._clients, url, clock=self._clock) if url else None
        return self._queue

    def _create_fleet(
        self, intent: NodeIntent, offers: Sequence[Offer], store_uri: str, place: Place
    ) -> CreateFleetResultTypeDef:
        plan = self._plan(intent, store_uri, place)
        request = fleet_request(
            offers,
            token=self._token(intent, store_uri),
            template=plan.name,
            subnets=place.subnets,
            tags=tags.node_tags(plan.tags, intent.node, intent.attempt),
            max_price=self._choice.max_price,
        )
        for pause in (*PROPAGATION_PAUSES, None):
            self._templates.ensure(plan)
            try:
                with self._clients.named(f"launch node {intent.node}"):
                    return self._clients.ec2.create_fleet(**request)
            except NotThere:
                self._templates.missed(plan.name)
                if pause is None:
                    raise
                self._clock.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _told_of(self, fleet: str, node: str) -> FleetDataTypeDef:
        """What a fleet bought and was refused, asked for later. Raises ProviderError, never a refusal."""
        try:
            with self._clients.named(f"see what the launch of node {node} bought"):
                found = self._clients.ec2.describe_fleets(FleetIds=[fleet])["Fleets"]
        except NotThere as error:
            raise ProviderUnavailable(f"{error}; it was made, and is asked for again") from error
        return found[0] if found else {}

    def _plan(self, intent: NodeIntent, store_uri: str, place: Place) -> TemplatePlan:
        from starling.infra.bootstrap.user_data import BootConfig, user_data

        with self._lock:
            package = _packed(store_uri)
        boot = BootConfig(store_uri=store_uri, region=self._choice.region, run=intent.run, package_sha256=package)
        stack, owner = self._choice.stack, self._clients.caller().name
        return TemplatePlan(
            stack=stack,
            run=intent.run,
            base_id=place.stack.template_id,
            base_revision=place.stack.revision,
            image=image_setting(self._choice.image, intent.offer.gpus),
            disk=self._choice.disk,
            user_data=user_data(boot),
            tags=tags.run_tags(stack=stack, store_uri=store_uri, run=intent.run, owner=owner),
        )

    def _launched_before(
        self, intent: NodeIntent, offers: Sequence[Offer], store_uri: str, error: ProviderError
    ) -> Launched:
        """This attempt was made before, by a controller with other settings, or its machine is gone: find it.
        If it does not show for as long as that may take, the attempt has bought nothing."""
        filters = [tagged(tags.NODE, intent.node), tagged(tags.ATTEMPT, str(intent.attempt))]
        for instance in read_instances(self._clients, filters, store_uri):
            found = machine(instance, {}, {})
            same = [offer for offer in offers if offer.key == (found.instance_type, found.zone, found.market)]
            self._launched[intent.node] = found.instance_id
            at = found.launched_at or self._clock.now()
            return Launched(instance_id=found.instance_id, offer=(same or [offers[0]])[0], at=at)
        token = self._token(intent, store_uri)
        since = self._mismatched.setdefault(token, self._clock.now())
        if self._clock.now() - since < ANOTHERS_SECONDS:
            raise ProviderUnavailable(f"{error}; its machine does not show yet") from error
        raise NoCapacity(f"node {intent.node}: an earlier launch with other settings has bought nothing") from error

    def _token(self, intent: NodeIntent, store_uri: str) -> str:
        stopped = self._stopped[intent.node, intent.attempt]
        return client_token(store_uri, intent.node, intent.attempt, stopped)

    def _ids_of(self, nodes: Sequence[str]) -> set[str]:
        """The instances of these nodes that are not gone yet."""
        found: set[str] = set()
        for start in range(0, len(nodes), MOST_FILTER_VALUES):
            filters = [tagged(tags.NODE, *nodes[start : start + MOST_FILTER_VALUES]), in_state(*NOT_GONE)]
            found |= {each["InstanceId"] for each in read_instances(self._clients, filters, self._store_uri)}
        return found

    def _terminate_ids(self, ids: set[str]) -> None:
        for start in range(0, len(ids), MOST_AT_ONCE):
            with self._clients.named(f"terminate {len(ids)} instances"):
                self._clients.ec2.terminate_instances(InstanceIds=sorted(ids)[start : start + MOST_AT_ONCE])


@functools.cache
def _packed(store_uri: str) -> str:
    """SHA-256 of this Starling, which is in the store from now on. Takes a second, so once in a process."""
    from starling.infra.bootstrap.package import pack_package
    from starling.infra.store import open_store

    try:
        return pack_package(open_store(store_uri))
    except StoreError as error:
        raise ProviderUnavailable(f"Starling's own code cannot be put into the store: {error}") from error
    except UsageError as error:
        raise Misconfigured(str(error)) from error


def _was_asked_before(error: ProviderError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ClientError) and cause.response["Error"].get("Code") in _REPEATED
