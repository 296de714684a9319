"""Nodes on hosts reached by ssh, with real servers and real processes: launch, look, interrupt, end, clear away."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ssh_hosts import RUN, LaterClock, SshHosts, eventually, machine_of

from starling.infra.errors import Misconfigured, NoCapacity, ProviderError, ProviderUnavailable
from starling.infra.providers.ssh.provider import REMEMBERED_SECONDS, placed
from starling.infra.records import NodeState, Termination

DIES = Path(__file__).with_name("dying_launcher.py")
DEATHS = [f"{moment}-3" for moment in ("before", "sent", "after")]
"""The first command asks for the time, the second finds our package missing, the third brings it and launches."""


def test_the_life_of_two_nodes(hosts: SshHosts) -> None:
    provider = hosts.provider(price_per_hour=0.5)
    offers = provider.offers(gpus=0, market="spot")
    assert [offer.zone for offer in offers] == [host.name for host in hosts.hosts()]
    assert [path.name for path in hosts.servers[0].home.iterdir()] == ["tmp"], "looking leaves nothing on a host"
    first, second = (provider.launch(hosts.intent(slot, offers), hosts.store.uri) for slot in (0, 1))
    assert first.offer == offers[0]
    assert second.offer == offers[1]
    nodes = [f"{RUN}.0.0", f"{RUN}.1.0"]
    for node in nodes:
        hosts.wait_training(node)
    machines = provider.list(RUN)
    assert {machine.node: machine.instance_id for machine in machines} == {
        nodes[0]: first.instance_id,
        nodes[1]: second.instance_id,
    }
    assert [(machine.zone, machine.address, machine.alive) for machine in machines] == [
        (offer.zone, "127.0.0.1", True) for offer in offers
    ]
    status = hosts.status(nodes[0])
    assert status is not None
    assert status.instance_id == first.instance_id == f"ssh-{offers[0].zone}-{nodes[0]}"
    assert machines[0].launched_at == pytest.approx(first.at)
    assert provider.offers(gpus=0, market="spot") == [], "one node a host"

    provider.interrupt(nodes[0], 30.0)
    assert hosts.wait_ended(provider, nodes[0]).ended_reason == "interruption notice"
    ended = hosts.status(nodes[0])
    assert ended is not None
    assert ended.state is NodeState.ENDED
    assert machine_of(provider, nodes[1]).alive
    provider.terminate(nodes)
    assert hosts.left_over() == []
    for node in nodes:
        provider.forget(node)
    provider.close(RUN)
    assert provider.list() == []
    for index in (0, 1):
        assert list((hosts.root(index) / "nodes").iterdir()) == []
        assert list((hosts.servers[index].home / "tmp").iterdir()) == []


def test_a_node_is_taken_at_once(hosts: SshHosts) -> None:
    provider = hosts.provider()
    node = launch(hosts, 0)
    hosts.wait_training(node)
    provider.interrupt(node, None)
    assert hosts.wait_ended(provider, node).ended_reason == "interrupted without notice"
    assert hosts.left_over() == []
    with pytest.raises(ProviderError, match="not running"):
        provider.interrupt(node, 1.0)
    with pytest.raises(ProviderError, match="on none of the hosts"):
        provider.interrupt(f"{RUN}.7.0", 1.0)


def test_a_terminate_intent_ends_the_node_without_us(hosts: SshHosts) -> None:
    node = launch(hosts, 0)
    hosts.wait_training(node)
    hosts.servers[0].stop()
    word = Termination(at=time.time(), reason="not needed")
    hosts.intent(0, hosts.provider().offers(gpus=0, market="spot"), terminate=word)
    eventually(lambda: hosts.left_over() == [], "the agent read it")


def test_a_node_outlives_the_connection_that_started_it(hosts: SshHosts) -> None:
    provider = hosts.provider()
    node = launch(hosts, 0)
    hosts.wait_training(node)
    hosts.servers[0].drop_connections()
    at = time.time()
    eventually(lambda: (status := hosts.status(node)) is not None and status.at > at + 1, "it reports")
    assert machine_of(provider, node).alive
    assert hosts.starts(node) == 1


def test_a_host_that_is_away_is_remembered_then_left_to_its_heartbeats(hosts: SshHosts) -> None:
    provider = hosts.provider()
    nodes = [launch(hosts, slot) for slot in (0, 1)]
    assert len(provider.list(RUN)) == 2
    hosts.servers[1].stop()
    assert machine_of(provider, nodes[1]).alive, "one look that fails says nothing"
    with pytest.raises(ProviderUnavailable, match=rf"terminate {nodes[1]}: no host that answers"):
        provider.terminate(nodes)
    assert not machine_of(provider, nodes[0]).alive, "the other host did what it was asked"
    hosts.clock.ahead += REMEMBERED_SECONDS
    assert [machine.node for machine in provider.list(RUN)] == [nodes[0]]
    hosts.servers[1].start()
    hosts.clock.ahead = 0.0
    assert machine_of(provider, nodes[1]).alive
    hosts.wait_training(nodes[1])
    assert hosts.starts(nodes[1]) == 1
    assert [offer.zone for offer in provider.offers(gpus=0, market="spot")] == [hosts.hosts()[0].name]


def test_silence_of_all_hosts_is_an_error_until_it_lasts(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    provider = hosts.provider()
    for server in hosts.servers:
        server.stop()
    with pytest.raises(ProviderUnavailable, match=r"cannot be reached: .*[Rr]efused"):
        provider.offers(gpus=0, market="spot")
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        provider.list(RUN)
    hosts.clock.ahead += REMEMBERED_SECONDS
    assert provider.list(RUN) == [], "a run whose hosts are all dead can be wound up"


@pytest.mark.parametrize("death", DEATHS)
def test_a_launcher_that_dies_anywhere_leaves_one_node_or_none(plain_hosts: SshHosts, death: str) -> None:
    hosts = plain_hosts
    offers = hosts.provider().offers(gpus=0, market="spot")
    intent = hosts.intent(0, offers)
    host = hosts.hosts()[0]
    words = [host.name, str(host.port), str(hosts.key), str(hosts.known_hosts), hosts.store.uri]
    died = subprocess.run(
        [sys.executable, str(DIES), death, *words], input=intent.to_bytes(), capture_output=True, check=False
    )
    assert died.returncode == 9, died.stderr.decode()
    provider = hosts.provider()
    again = provider.launch(intent, hosts.store.uri)
    assert provider.launch(intent, hosts.store.uri) == again
    hosts.wait_training(intent.node)
    assert [machine.instance_id for machine in provider.list(RUN)] == [again.instance_id]
    assert hosts.starts(intent.node) == 1
    provider.terminate([intent.node])
    assert provider.launch(intent, hosts.store.uri) == again, "a node never starts twice"
    assert hosts.left_over() == []


def test_two_controllers_start_one_node(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    intent = hosts.intent(0, hosts.provider().offers(gpus=0, market="spot"))
    providers = [hosts.provider() for _ in range(3)]
    with ThreadPoolExecutor(len(providers)) as pool:
        launched = list(pool.map(lambda provider: provider.launch(intent, hosts.store.uri), providers))
    assert len(set(launched)) == 1
    hosts.wait_training(intent.node)
    assert hosts.starts(intent.node) == 1


def test_two_nodes_that_want_one_host_are_one_node_and_one_refusal(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    provider = hosts.provider()
    only = provider.offers(gpus=0, market="spot")[:1]
    first, second = (hosts.intent(slot, only) for slot in (0, 1))
    provider.launch(first, hosts.store.uri)
    with pytest.raises(NoCapacity, match=rf"is taken: node {first.node} runs on it") as refused:
        provider.launch(second, hosts.store.uri)
    assert [refusal.zone for refusal in refused.value.refusals] == [only[0].zone]
    provider.terminate([first.node])
    with pytest.raises(NoCapacity):
        hosts.provider().launch(second, hosts.store.uri)  # its next attempt may run elsewhere by now
    provider.launch(second.but(attempt=1), hosts.store.uri)
    hosts.wait_training(second.node)
    assert hosts.starts(second.node) == 1


def test_slots_begin_at_different_hosts(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    offers = hosts.provider().offers(gpus=0, market="spot")
    assert [placed(hosts.intent(slot, offers)) for slot in (0, 1, 2)] == [offers[0], offers[1], offers[0]]


def test_a_host_with_too_few_gpus_is_not_offered(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    provider = hosts.provider(gpus=2)
    assert len(provider.offers(gpus=2, market="spot")) == 2
    assert provider.offers(gpus=4, market="spot") == []


def test_nodes_of_another_store_are_not_ours_but_take_the_host(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    node = launch(hosts, 0)
    hosts.store = type(hosts.store)(hosts.folder / "other")  # type: ignore[call-arg]
    other = hosts.provider()
    assert other.list() == []
    other.terminate([node])
    other.forget(node)
    assert [offer.zone for offer in other.offers(gpus=0, market="spot")] == [hosts.hosts()[1].name]
    assert hosts.left_over() != []


def test_a_node_of_another_store_that_has_our_nodes_name_is_not_our_node(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    offers = hosts.provider().offers(gpus=0, market="spot")[:1]
    ours, others = hosts.intent(0, offers), hosts.intent(1, offers)
    here, there = hosts.store.uri, f"{hosts.store.uri}-of-somebody-else"
    provider, other = hosts.provider(), hosts.provider(store_uri=there)
    provider.launch(ours, here)
    provider.terminate([ours.node])
    provider.launch(others, here)
    with pytest.raises(NoCapacity, match=rf"node {others.node} runs on it"):
        other.launch(ours, there)  # what is left of our node does not make theirs a started one
    other.close(RUN)  # the other store's run is over: its refusals go, ours stay
    assert list((hosts.root(0) / "refused").iterdir()) == []
    with pytest.raises(NoCapacity):
        provider.launch(hosts.intent(2, offers), here)
    other.close(RUN)
    provider.terminate([others.node])
    with pytest.raises(NoCapacity):
        provider.launch(hosts.intent(2, offers), here)
    provider.close(RUN)
    assert list((hosts.root(0) / "refused").iterdir()) == []
    assert hosts.left_over() == []


class SlowLink(LaterClock):
    """A minute passes before the first answer is here; the way to the host is that slow."""

    ahead = -60.0

    def now(self) -> float:
        moment = super().now()
        self.ahead = 0.0
        return moment


def test_a_wrong_clock_is_told_and_a_slow_link_is_none(plain_hosts: SshHosts) -> None:
    hosts = plain_hosts
    intent = hosts.intent(0, hosts.provider().offers(gpus=0, market="spot"))
    hosts.clock.ahead = 3600.0
    with pytest.raises(Misconfigured, match=r"its clock is 3[56]\d\d s off; .*timedatectl"):  # less what the way took
        hosts.provider().launch(intent, hosts.store.uri)
    assert hosts.left_over() == [], "nothing was started"
    hosts.clock = SlowLink()
    hosts.provider().launch(intent, hosts.store.uri)


def launch(hosts: SshHosts, slot: int) -> str:
    """The slot's first node, on the host of the same number."""
    names = [host.name for host in hosts.hosts()]
    offers = sorted(hosts.provider().offers(gpus=0, market="spot"), key=lambda offer: names.index(offer.zone))
    intent = hosts.intent(slot, [offers[slot if len(offers) == 2 else 0]])
    hosts.provider().launch(intent, hosts.store.uri)
    return intent.node
