"""Provider of hosts you own: on each, one node at a time, run by the code of local nodes (`on_host/serve.py`).

What is known about a node lies on its host; this object remembers connections and what hosts said last, and losing that
is harmless. Any number of controllers may use the same hosts at once.

* A launch goes to one host only, which follows from the committed intent alone (`placed`): repeated by anybody, it
  arrives where it arrived before, and the host starts a node once.
* A host that does not answer is not dead: its nodes are shown as they were for REMEMBERED_SECONDS, and then not at all,
  so that their heartbeats in the store decide. Ending a node fails while its host does not answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import Misconfigured, NoCapacity, NotAuthorised, ProviderError, ProviderUnavailable, Refusal
from starling.infra.providers.base import Launched, Machine, Pace
from starling.infra.providers.ssh.address import address_for_peers
from starling.infra.providers.ssh.calls import Package, ask, check_clock, package
from starling.infra.providers.ssh.connection import Connection
from starling.infra.providers.ssh.hosts import Host, SshChoice
from starling.infra.records import Market, NodeIntent, Offer

INSTANCE_TYPE = "host"
REMEMBERED_SECONDS = 60.0
"""How long the last word of a host that does not answer is taken for its present one."""
MOST_AT_ONCE = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a host said about its nodes."""

    at: float
    machines: tuple[Machine, ...]


class SshProvider:
    """Offers each host of the spec that no node uses."""

    name = "ssh"
    pace = Pace(
        look=2.0, list_busy=2.0, list_calm=15.0, settle=5.0, boot=600.0, offers=5.0, parallel_launches=MOST_AT_ONCE
    )

    def __init__(
        self,
        choice: SshChoice,
        *,
        store_uri: str | None = None,
        agent_options: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        """With `store_uri`, only nodes of that store are shown, ended or forgotten. `agent_options` are added to the
        agents' command line."""
        self._root = choice.root
        self._store_uri = store_uri
        self._agent_options = tuple(agent_options)
        self._clock = clock or SystemClock()
        self._connections = {host.name: Connection(host, choice.known_hosts) for host in choice.hosts}
        self._package: Package | None = None
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str | None], Heard] = {}
        self._silent: set[str] = set()
        self._all_silent_since: float | None = None
        self._looked_over = False

    def offers(self, *, gpus: int, market: str) -> list[Offer]:
        """The hosts that are free and have the GPUs, cheapest first, else in the spec's order.

        Raises Misconfigured or NotAuthorised if any host cannot be used as it is, but only the first time: a run does
        not begin like that, and one that is under way goes on with the others. ProviderUnavailable if none answers.
        """
        answers = self._ask_all({"do": "list"})
        if not self._looked_over:
            self._looked_over = True
            _raise_settings(answers)
        _raise_if_all_failed(answers)
        free = [
            connection.host
            for connection, answer in zip(self._connections.values(), answers.values(), strict=True)
            if isinstance(answer, dict) and answer.get("busy") is None and connection.host.gpus >= gpus
        ]
        return [self._offer(host, market) for host in sorted(free, key=lambda host: host.price_per_hour)]

    def launch(self, intent: NodeIntent, store_uri: str) -> Launched:
        offer = placed(intent)
        connection = self._connections.get(offer.zone)
        if connection is None:
            raise _refused(offer, f"host {offer.zone} is not in the spec (any more)")
        check_clock(connection, self._root, self._ours(), self._clock)
        errand = {
            "do": "launch",
            "intent": intent.model_dump(mode="json"),
            "store_uri": store_uri,
            "address": address_for_peers(connection.target()),
            "place": f"ssh-{offer.zone}",
            "agent_options": self._agent_options,
        }
        answer = ask(connection, self._root, self._ours(), errand)
        if "refused" in answer:
            raise _refused(offer, f"host {offer.zone} is taken: {answer['refused']}")
        return Launched(instance_id=answer["instance_id"], offer=offer, at=answer["at"])

    def list(self, run: str | None = None) -> list[Machine]:
        """Raises if no host answers, for as long as that may be this computer's own network."""
        answers = self._ask_all({"do": "list", "run": run, "store_uri": self._store_uri})
        heard = [self._remember(name, run, answer) for name, answer in answers.items()]
        if self._all_silent(heard) < REMEMBERED_SECONDS:
            _raise_if_all_failed(answers)
        return _distinct(machine for one in heard if one is not None for machine in one.machines)

    def terminate(self, nodes: Sequence[str]) -> None:
        self._ask_about("terminate", nodes)

    def interrupt(self, node: str, notice: float | None) -> None:
        if node not in self._ask_about("interrupt", [node], notice=notice):
            raise ProviderError(f"node {node} runs on none of the hosts, so it cannot be interrupted")

    def forget(self, node: str) -> None:
        self._ask_about("forget", [node])

    def close(self, run: str) -> None:
        """Package and environment stay on the hosts for the next run."""
        self._ask_all({"do": "close", "run": run, "store_uri": self._store_uri})

    def disconnect(self) -> None:
        """Hang up on all hosts. Whatever comes next connects again."""
        for connection in self._connections.values():
            connection.close()

    def place(self, node: str) -> tuple[Connection, PurePosixPath]:
        """The host on which a node lives or lived, and its folder there. Raises ProviderError if there is none."""
        run = node.rsplit(".", 2)[0]
        for name, answer in self._ask_all({"do": "list", "run": run, "store_uri": self._store_uri}).items():
            if isinstance(answer, dict) and any(machine["node"] == node for machine in answer.get("machines", ())):
                return self._connections[name], PurePosixPath(answer["nodes"]) / node
        raise ProviderError(f"node {node} is on none of the hosts that answer")

    def _ask_about(self, errand: str, nodes: Sequence[str], **more: Any) -> set[str]:
        """Give every host the errand; returns the nodes that some host knows. Fails if the others may be on a host that
        did not do it."""
        answers = self._ask_all({"do": errand, "nodes": list(nodes), "store_uri": self._store_uri, **more})
        known = {node for answer in answers.values() if isinstance(answer, dict) for node in answer.get("known", ())}
        failures = [answer for answer in answers.values() if isinstance(answer, ProviderError)]
        if failures and (unclear := sorted(set(nodes) - known)):
            reasons = "; ".join(map(str, failures))
            raise ProviderUnavailable(f"{errand} {', '.join(unclear)}: no host that answers knows of it, and {reasons}")
        return known

    def _ask_all(self, errand: dict[str, Any]) -> dict[str, dict[str, Any] | ProviderError]:
        """Every host's answer, or why it gave none; in the spec's order."""
        ours = self._ours()

        def ask_one(connection: Connection) -> dict[str, Any] | ProviderError:
            try:
                return ask(connection, self._root, ours, errand)
            except ProviderError as error:
                return error

        with ThreadPoolExecutor(min(MOST_AT_ONCE, len(self._connections)), thread_name_prefix="ssh") as pool:
            answers = list(pool.map(ask_one, self._connections.values()))
        found = dict(zip(self._connections, answers, strict=True))
        self._tell_silence(found)
        return found

    def _tell_silence(self, answers: dict[str, dict[str, Any] | ProviderError]) -> None:
        """One line when a host falls silent, one when it is back."""
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, ProviderError)}
        for name in sorted(failed.keys() - self._silent):
            _log.warning("%s", failed[name])
        for name in sorted(self._silent - failed.keys()):
            _log.warning("host %s answers again", name)
        self._silent = set(failed)

    def _remember(self, name: str, run: str | None, answer: dict[str, Any] | ProviderError) -> Heard | None:
        """What the host says, or lately said; None: nobody knows."""
        now, key = self._clock.now(), (name, run)
        if isinstance(answer, ProviderError):
            heard = self._heard.get(key)
            return heard if heard is not None and now - heard.at < REMEMBERED_SECONDS else None
        machines = tuple(_machine(name, told) for told in answer.get("machines", ()))
        self._heard[key] = Heard(at=now, machines=machines)
        return self._heard[key]

    def _all_silent(self, heard: Sequence[Heard | None]) -> float:
        """For how many seconds nothing has been known of any host; endless silence lets a run be wound up."""
        if any(one is not None for one in heard):
            self._all_silent_since = None
            return REMEMBERED_SECONDS
        now = self._clock.now()
        self._all_silent_since = self._all_silent_since or now
        return now - self._all_silent_since

    def _ours(self) -> Package:
        with self._lock:
            if self._package is None:
                self._package = package()
            return self._package

    def _offer(self, host: Host, market: str) -> Offer:
        return Offer(
            provider=self.name,
            instance_type=INSTANCE_TYPE,
            zone=host.name,
            market=Market(market),
            price_per_hour=host.price_per_hour,
            gpus=host.gpus,
        )


def placed(intent: NodeIntent) -> Offer:
    """The candidate that this attempt asks for: slots begin at different ones, so that nodes that are wanted at the
    same time rarely want the same host."""
    candidates = intent.candidates or (intent.offer,)
    return candidates[intent.slot % len(candidates)]


def _machine(host: str, told: dict[str, Any]) -> Machine:
    """Its processes are another computer's."""
    return Machine(**{**told, "pids": (), "zone": host, "instance_type": INSTANCE_TYPE})


def _distinct(machines: Iterable[Machine]) -> list[Machine]:
    """One a node, the living one first: a host may be listed under two names."""
    found: dict[str, Machine] = {}
    for machine in machines:
        if machine.node not in found or machine.alive:
            found[machine.node] = machine
    return list(found.values())


def _refused(offer: Offer, message: str) -> NoCapacity:
    refusal = Refusal(
        instance_type=offer.instance_type,
        zone=offer.zone,
        market=offer.market.value,
        kind=NoCapacity,
        message=message,
    )
    return NoCapacity(message, (refusal,))


def _raise_settings(answers: Mapping[str, dict[str, Any] | ProviderError]) -> None:
    """What only a person can put right is told at once, for all hosts together."""
    found = [answer for answer in answers.values() if isinstance(answer, Misconfigured | NotAuthorised)]
    if found:
        raise type(found[0])("\n".join(map(str, found)))


def _raise_if_all_failed(answers: Mapping[str, dict[str, Any] | ProviderError]) -> None:
    """As something for a person only if none of the hosts may just be away."""
    failures = [answer for answer in answers.values() if isinstance(answer, ProviderError)]
    if not failures or len(failures) < len(answers):
        return
    if all(isinstance(failure, Misconfigured | NotAuthorised) for failure in failures):
        _raise_settings(answers)
    raise ProviderUnavailable("; ".join(map(str, failures)))
