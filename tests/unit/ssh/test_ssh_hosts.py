"""What the spec and ~/.ssh/config make of a host."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from pydantic import ValidationError

from starling.cli.places import RemotePlace
from starling.infra.errors import Misconfigured
from starling.infra.providers.ssh.calls import seconds_off
from starling.infra.providers.ssh.connection import Connection
from starling.infra.providers.ssh.hosts import Host, SshChoice, resolve, ssh_options
from starling.infra.providers.ssh.provider import placed
from starling.infra.records import Market, NodeIntent, Offer
from tests.support.specs import spec

CONFIG = """
Host gpu1
  HostName 10.0.0.5
  User ada
  Port 2222
  IdentitiesOnly yes
  ProxyJump gate,inner
Host gpu2
  ProxyCommand none
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config").write_text(CONFIG)
    return tmp_path


def test_the_config_completes_what_the_spec_leaves_open(folder: Path) -> None:
    target = resolve(Host(address="gpu1"), None, folder)
    assert (target.hostname, target.port, target.user, target.use_agent) == ("10.0.0.5", 2222, "ada", False)
    assert target.known_as == "[10.0.0.5]:2222"
    assert target.proxy == ("ssh", "-J", "gate", "-W", "10.0.0.5:2222", "--", "inner")


@pytest.mark.parametrize(
    ("hop", "destination"),
    [
        ("bastion:2222", "ssh://bastion:2222"),
        ("eve@bastion:2222", "ssh://eve@bastion:2222"),
        ("[fe80::1]:23", "ssh://[fe80::1]:23"),
        ("eve@[fe80::1]", "ssh://eve@[fe80::1]"),
        ("fe80::1", "fe80::1"),
        ("ssh://bastion:22", "ssh://bastion:22"),
        ("eve@bastion", "eve@bastion"),
    ],
)
def test_a_jump_host_may_have_a_port(tmp_path: Path, hop: str, destination: str) -> None:
    (tmp_path / "config").write_text(f"ProxyJump first:23,{hop}\n")
    proxy = resolve(Host(address="::1"), None, tmp_path).proxy
    assert proxy == ("ssh", "-J", "first:23", "-W", "[::1]:22", "--", destination)


def test_a_proxy_command_is_the_shells_and_sees_the_specs_words(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("User bob\nPort 99\nHost gpu*\n  ProxyCommand nc %h %p 2>/tmp/%r # here\n")
    target = resolve(Host(address="gpu1", user="eve", port=2222), None, tmp_path)
    assert target.proxy == ("/bin/sh", "-c", "exec nc gpu1 2222 2>/tmp/eve # here")
    assert (target.user, target.port) == ("eve", 2222)
    assert resolve(Host(address="gpu1"), None, tmp_path).proxy == ("/bin/sh", "-c", "exec nc gpu1 99 2>/tmp/bob # here")


def test_the_spec_wins(folder: Path) -> None:
    key = folder / "lab"
    key.touch()
    target = resolve(Host(address="gpu1", user="eve", port=22, key=str(key)), None, folder)
    assert (target.port, target.user, target.keys, target.known_as) == (22, "eve", (key,), "10.0.0.5")


def test_without_words_of_anybody_the_usual_keys_are_tried(folder: Path) -> None:
    for name in ("id_rsa", "id_ed25519", "other"):
        (folder / name).touch()
    target = resolve(Host(address="gpu2"), None, folder)
    assert (target.hostname, target.port, target.proxy, target.use_agent) == ("gpu2", 22, None, True)
    assert [path.name for path in target.keys] == ["id_ed25519", "id_rsa"]


def test_known_hosts_is_the_one_that_is_named(folder: Path) -> None:
    (folder / "lab_hosts").touch()
    named = str(folder / "lab_hosts")
    assert resolve(Host(address="gpu2"), named, folder).known_hosts == (folder / "lab_hosts",)
    with pytest.raises(Misconfigured, match=r"provider\.known_hosts"):
        resolve(Host(address="gpu2"), str(folder / "nowhere"), folder)


def test_the_systems_ssh_is_told_the_specs_words_only() -> None:
    host = Host(address="gpu1", user="eve", port=2222, key="/keys/lab")
    assert ssh_options(host, "/known")[4:] == [
        *("-o", "UserKnownHostsFile=/known", "-l", "eve", "-p", "2222", "-i", "/keys/lab")
    ]
    assert ssh_options(Host(address="gpu1"), None) == ["-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no"]


def test_a_spec_becomes_a_choice() -> None:
    hosts = [{"address": "a", "gpus": 2}, {"address": "a", "port": 23}]
    section = spec(nodes={"max": 2}, provider={"name": "ssh", "hosts": hosts})
    choice = SshChoice.from_section(section.provider.model_dump())
    assert [host.name for host in choice.hosts] == ["a", "a:23"]
    assert choice.hosts[0].gpus == 2
    assert choice.root == "~/.starling/node"


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ({"address": "b", "key": "keys/lab"}, "pattern"),
        ({"address": "-oProxyCommand=x"}, "pattern"),
        ({"address": "a b"}, "pattern"),
        ({"address": "a\n"}, "pattern"),
        ({"address": "$(x)"}, "pattern"),
        ({"address": ""}, "pattern"),
        ({"address": "[b]"}, "pattern"),
        ({"address": "b", "private_address": "-W"}, "pattern"),
        ({"address": "b", "user": "-lroot"}, "pattern"),
        ({"address": "b", "user": "eve;x"}, "pattern"),
        ({"address": "a"}, "listed before"),
        ({"address": "a", "port": 22}, "listed before"),
    ],
)
def test_mistakes_in_the_list_are_refused(host: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        spec(provider={"name": "ssh", "hosts": [{"address": "a"}, host]})


@pytest.mark.parametrize(
    "address", ["gpu-1.example.org", "gpu_1", "10.0.0.5", "fe80::1", "[fe80::1]", "::ffff:10.0.0.5"]
)
def test_names_and_numbers_are_addresses(address: str) -> None:
    section = {"name": "ssh", "hosts": [{"address": address, "user": "ada@lab"}]}
    [host] = SshChoice.from_section(spec(nodes={"max": 1}, provider=section).provider.model_dump()).hosts
    assert host.address == address.strip("[]"), "a socket takes no brackets"


def test_a_shell_on_a_node_takes_no_address_for_an_option() -> None:
    place = RemotePlace(
        node="r.0.0",
        folder=PurePosixPath("/n"),
        connection=Connection(Host(address="-oProxyCommand=x")),
        known_hosts=None,
    )
    assert place.shell()[-3:-1] == ["--", "-oProxyCommand=x"]


@pytest.mark.parametrize(("told", "off"), [(95.0, 5.0), (100.0, 0.0), (130.0, 0.0), (160.0, 0.0), (175.0, 15.0)])
def test_a_clock_is_wrong_only_if_no_moment_on_the_way_explains_it(told: float, off: float) -> None:
    assert seconds_off(told, sent=100.0, received=160.0) == off


def test_a_launch_goes_where_the_intent_says() -> None:
    offers = tuple(
        Offer(provider="ssh", instance_type="host", zone=zone, market=Market.SPOT, price_per_hour=0.0) for zone in "abc"
    )
    intent = NodeIntent(
        node="r.0.0",
        run="r",
        incarnation=0,
        slot=0,
        generation=0,
        offer=offers[2],
        wanted_at=0.0,
        authorised_until=None,
    )
    assert placed(intent) == offers[2]
    assert [placed(intent.but(candidates=offers, slot=slot)).zone for slot in range(5)] == ["a", "b", "c", "a", "b"]
