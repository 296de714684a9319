"""Who is on the other end, and who are we: host keys, our own keys, ~/.ssh/config; with real servers."""

from __future__ import annotations

import base64
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest
from ssh_hosts import SshHosts, eventually

from starling.infra.errors import Misconfigured, NotAuthorised, ProviderUnavailable
from starling.infra.providers.ssh.connection import Connection
from starling.infra.providers.ssh.hosts import Host
from tests.support.ssh_server import make_key, public_key

PATIENCE = 60.0
"""Seconds that a command may take on a busy machine."""


def connection(hosts: SshHosts, **changes: object) -> Connection:
    words = {"address": "127.0.0.1", "port": hosts.servers[0].port, "key": str(hosts.key), **changes}
    return Connection(Host(**words), str(hosts.known_hosts))  # type: ignore[arg-type]


def said(connection: Connection, command: str = "echo hello") -> str:
    try:
        return connection.run(command, timeout=PATIENCE).out.decode().strip()
    finally:
        connection.close()


def test_a_known_host_lets_us_in(hosts: SshHosts) -> None:
    assert said(connection(hosts)) == "hello"


def test_an_unknown_host_is_refused_with_its_fingerprint(hosts: SshHosts) -> None:
    hosts.known_hosts.write_text("")
    kind, encoded = hosts.servers[0].host_key.split()
    fingerprint = paramiko.PKey.from_type_string(kind, base64.b64decode(encoded)).fingerprint
    with pytest.raises(Misconfigured, match="it could be anybody's machine") as refused:
        said(connection(hosts))
    assert fingerprint in str(refused.value)
    assert f"ssh-keyscan -p {hosts.servers[0].port} 127.0.0.1 >> {hosts.known_hosts}" in str(refused.value)
    assert hosts.known_hosts.read_text() == "", "nothing is added on its own"


def test_a_changed_host_is_refused(hosts: SshHosts) -> None:
    hosts.servers[0].stop()
    hosts.servers[0].renew_key()
    hosts.servers[0].start()
    with pytest.raises(Misconfigured, match="shows another key than the one in") as refused:
        said(connection(hosts))
    assert f"ssh-keygen -R '[127.0.0.1]:{hosts.servers[0].port}'" in str(refused.value)
    hosts.trust()
    assert said(connection(hosts)) == "hello"


def test_a_revoked_key_is_refused_though_it_is_known(hosts: SshHosts) -> None:
    with hosts.known_hosts.open("a") as file:
        file.write("@cert-authority *.example.org ssh-ed25519 AAAA\nnonsense\n")
    assert said(connection(hosts)) == "hello", "lines of other kinds are passed over"
    with hosts.known_hosts.open("a") as file:
        file.write(f"@revoked * {hosts.servers[0].host_key}\n")
    with pytest.raises(Misconfigured, match="is revoked"):
        said(connection(hosts))


def test_a_run_does_not_begin_with_a_host_nobody_knows(hosts: SshHosts) -> None:
    hosts.known_hosts.write_text(hosts.known_hosts.read_text().splitlines()[0] + "\n")
    with pytest.raises(Misconfigured, match=rf"host {hosts.hosts()[1].name} .* anybody's machine"):
        hosts.provider().offers(gpus=0, market="spot")


def test_the_wrong_key_is_told_with_what_was_tried(hosts: SshHosts, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    with pytest.raises(NotAuthorised, match=rf"does not let \w+ in; tried: {other}") as refused:
        said(connection(hosts, key=str(other)))
    assert "authorized_keys" in str(refused.value)
    with pytest.raises(NotAuthorised):
        hosts.provider(key=str(other)).offers(gpus=0, market="spot")


def test_a_locked_key_is_told_as_such(hosts: SshHosts, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    paramiko.RSAKey.generate(2048).write_private_key_file(str(locked), password="secret")
    with pytest.raises(NotAuthorised, match=rf"needs its passphrase: `ssh-add {locked}`"):
        said(connection(hosts, key=str(locked)))


def test_keys_and_files_that_are_not_there_are_named(hosts: SshHosts, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"its key .*nowhere is not there"):
        said(connection(hosts, key=str(tmp_path / "nowhere")))
    (tmp_path / "no-key").write_text("hello")
    with pytest.raises(Misconfigured, match="no-key is no private key that can be used"):
        said(connection(hosts, key=str(tmp_path / "no-key")))
    with pytest.raises(Misconfigured, match=r"provider\.known_hosts: .*nowhere is not there"):
        said(Connection(hosts.hosts()[0], str(tmp_path / "nowhere")))


def test_the_users_ssh_config_is_heeded(hosts: SshHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    config = f"Host gpu-*\n  HostName 127.0.0.1\n  Port {hosts.servers[0].port}\n  IdentityFile {hosts.key}\n"
    (tmp_path / ".ssh" / "config").write_text(config)
    (tmp_path / ".ssh" / "known_hosts").write_text(hosts.known_hosts.read_text())
    assert said(Connection(Host(address="gpu-1"))) == "hello"
    piping = f'{sys.executable} -m tests.support.pipe %h "$(echo %p)" 2>&-'
    (tmp_path / ".ssh" / "config").write_text(config + f"  ProxyCommand {piping}\n  HostKeyAlias elsewhere\n")
    with pytest.raises(Misconfigured, match=r"host gpu-1 \(elsewhere\) is not in"):
        said(Connection(Host(address="gpu-1")))
    (tmp_path / ".ssh" / "known_hosts").write_text(f"elsewhere {hosts.servers[0].host_key}\n")
    assert said(Connection(Host(address="gpu-1"))) == "hello"


def test_keys_of_the_config_that_cannot_be_used_are_passed_over(
    plain_hosts: SshHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = plain_hosts
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    fido, config = fido_key(tmp_path / "id_sk"), tmp_path / ".ssh" / "config"
    config.write_text(f"IdentityFile {fido}\nIdentityFile {hosts.key}.pub\n")
    with pytest.raises(NotAuthorised, match=rf"tried: {fido} \(cannot be used: .*{hosts.key}\.pub \(cannot be used"):
        said(connection(hosts, key=None))
    config.write_text(f"IdentityFile {fido}\nIdentityFile {hosts.key}\n")
    assert said(connection(hosts, key=None)) == "hello"
    with pytest.raises(Misconfigured, match="id_sk is no private key that can be used"):
        said(connection(hosts, key=str(fido)))


def fido_key(path: Path) -> Path:
    """A key file of the kind that lives in a security token, as PROTOCOL.key and PROTOCOL.u2f of OpenSSH lay it out."""

    def text(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    kind = b"sk-ssh-ed25519@openssh.com"
    public = text(kind) + text(b"p" * 32) + text(b"ssh:")
    private = b"7777" * 2 + public + b"\x01" + text(b"handle") + text(b"") + text(b"comment")
    private += bytes(range(1, 1 + -len(private) % 8))
    whole = b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + struct.pack(">I", 1)
    lines = base64.encodebytes(whole + text(public) + text(private)).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}-----END OPENSSH PRIVATE KEY-----\n")
    return path


def test_a_host_that_is_down_is_unavailable_and_comes_back(hosts: SshHosts) -> None:
    line = connection(hosts)
    assert line.run("echo one", timeout=PATIENCE).out == b"one\n"
    hosts.servers[0].stop()
    with pytest.raises(ProviderUnavailable, match=r"cannot be reached: .*[Rr]efused"):
        line.run("echo two", timeout=PATIENCE)
    hosts.servers[0].start()
    assert said(line, "echo three") == "three"


def test_a_connection_that_breaks_under_a_command_is_told(hosts: SshHosts, tmp_path: Path) -> None:
    line = connection(hosts)
    begun, over = tmp_path / "begun", tmp_path / "over"
    with ThreadPoolExecutor(1) as pool:
        # It takes its input first, which is sent once it was told that the command runs.
        command = f"read go; touch {begun}; until [ -e {over} ]; do sleep 0.1; done"
        ran = pool.submit(line.run, command, b"go\n", timeout=PATIENCE)
        try:
            eventually(begun.exists, "the command runs")
            hosts.servers[0].drop_connections()
            with pytest.raises(ProviderUnavailable, match="the connection broke while a command ran"):
                ran.result()
        finally:
            over.touch()
    assert said(line) == "hello"


def test_much_output_on_both_sides_is_taken_in(hosts: SshHosts) -> None:
    line = connection(hosts)
    ran = line.run("yes 0123456789 | head -c 5000000 >&2; yes x | head -c 5000000; exit 4", timeout=PATIENCE)
    line.close()
    assert (ran.status, len(ran.out), len(ran.err)) == (4, 5_000_000, 5_000_000)


def test_a_python_that_cannot_be_used_is_named(hosts: SshHosts, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="has no /nowhere/python"):
        hosts.provider(python="/nowhere/python").offers(gpus=0, market="spot")
    with pytest.raises(Misconfigured, match="has no ~/nowhere/python"):
        hosts.provider(python="~/nowhere/python").offers(gpus=0, market="spot")
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho starling-old-python 3.8.1 >&2\nexit 1\n")
    old.chmod(0o700)
    with pytest.raises(Misconfigured, match=r"there is Python 3\.8\.1; name one of 3\.11 or later"):
        hosts.provider(python=str(old)).offers(gpus=0, market="spot")


def test_the_public_key_is_what_ssh_keygen_wrote(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    loaded = paramiko.PKey.from_path(key)
    assert public_key(key) == f"{loaded.get_name()} {loaded.get_base64()}"
