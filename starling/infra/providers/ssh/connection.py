"""One host's ssh connection: made when it is needed, made again when it broke. Commands, and files by SFTP.

No password is ever asked for or sent, and no agent is forwarded.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

from starling.infra.errors import Misconfigured, NotAuthorised, ProviderError, ProviderUnavailable
from starling.infra.providers.ssh import host_keys
from starling.infra.providers.ssh.hosts import Host, Target, resolve

CONNECT_SECONDS = 10.0
"""For each of: reaching the host, agreeing on keys, logging in, opening a channel."""
KEEPALIVE_SECONDS = 15
MAX_OUTPUT = 16 << 20
"""Bytes of one command's output that are read; an answer of ours is never longer."""

_CHUNK = 1 << 15

# What it would print is raised as well, in our words.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """How a command on the host ended."""

    status: int
    out: bytes
    err: bytes


class Connection:
    """To one host. Thread-safe. Nothing is sent before the first command."""

    def __init__(self, host: Host, known_hosts: str | None = None) -> None:
        self.host = host
        self._known_hosts = known_hosts
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None

    def run(self, command: str, data: bytes = b"", *, timeout: float) -> Ran:
        """Run a command in the user's shell on the host, with `data` as its input.

        Raises Misconfigured and NotAuthorised if we may not or must not log in, and ProviderUnavailable if the host
        does not answer, or stopped answering: then the command may have run.
        """
        deadline = time.monotonic() + timeout
        with self._troubles_named(f"no answer within {timeout:.0f} s"):
            channel = self._channel()
            with channel:
                channel.exec_command(command)
                return _converse(channel, data, deadline)

    @contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """Files on the host. Raises like `run`, also when the connection breaks; single files raise OSErrors."""
        with self._troubles_named("no answer"):
            channel = self._channel()
        with channel:
            with self._troubles_named("it does not serve files (SFTP)"):
                client = _start_sftp(channel)
            with client:
                try:
                    yield client
                except (paramiko.SSHException, EOFError) as error:
                    self.close()
                    raise ProviderUnavailable(f"host {self.host.name} hung up: {_words(error)}") from error

    def target(self) -> Target:
        """What ~/.ssh/config and the spec make of the host, as they are now. Raises Misconfigured."""
        return resolve(self.host, self._known_hosts)

    def close(self) -> None:
        """Hang up; the next command connects again."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
            self._transport = None

    def _channel(self) -> paramiko.Channel:
        """A new channel; a connection that turns out to be broken is made anew, once."""
        for first_try in (True, False):
            transport = self._connected()
            try:
                channel = transport.open_session(timeout=CONNECT_SECONDS)
                channel.settimeout(CONNECT_SECONDS)
                return channel
            except (paramiko.SSHException, EOFError, OSError):
                self.close()
                if not first_try:
                    raise
        raise AssertionError("the second try returned or raised")

    def _connected(self) -> paramiko.Transport:
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = _connect(self.target())
            return self._transport

    @contextmanager
    def _troubles_named(self, late: str) -> Iterator[None]:
        """Whatever goes wrong on the way to the host becomes an error of ours that names it."""
        try:
            yield
        except TimeoutError as error:
            self.close()
            raise ProviderUnavailable(f"host {self.host.name}: {late}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            self.close()
            raise ProviderUnavailable(f"host {self.host.name} cannot be reached: {_words(error)}") from error


def _connect(target: Target) -> paramiko.Transport:
    """Reach the host, see that it is the right one, log in."""
    transport = paramiko.Transport(_road(target))
    transport.banner_timeout = transport.auth_timeout = CONNECT_SECONDS
    try:
        trusted = host_keys.trusted_keys(target)
        options = transport.get_security_options()
        options.key_types = host_keys.preferred_algorithms(trusted, list(options.key_types))
        transport.start_client(timeout=CONNECT_SECONDS)
        host_keys.check(target, transport.get_remote_server_key(), trusted)
        _log_in(transport, target)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(KEEPALIVE_SECONDS)
    return transport


def _road(target: Target) -> socket.socket:
    if target.proxy is None:
        return socket.create_connection((target.hostname, target.port), timeout=CONNECT_SECONDS)
    # A real socket, which paramiko's own ProxyCommand is not; the command ends when we close our side of it.
    ours, theirs = socket.socketpair()
    with theirs:
        command = subprocess.Popen(target.proxy, stdin=theirs.fileno(), stdout=theirs.fileno())
    threading.Thread(target=command.wait, name="ssh-proxy", daemon=True).start()
    return ours


def _log_in(transport: paramiko.Transport, target: Target) -> None:
    tried: list[str] = []
    for name, key in _identities(target, tried):
        tried.append(name)
        with suppress(paramiko.AuthenticationException):  # refused: perhaps the next key is the right one
            # What is still asked for after a key that was accepted (a second factor) cannot be given here.
            if not transport.auth_publickey(target.user, key):
                return
        if not transport.is_active():
            raise paramiko.SSHException("it hung up while we logged in")
    told = ", ".join(tried) or "no key, as there is none"
    raise NotAuthorised(
        f"host {target.host.name} does not let {target.user} in; tried: {told}.\n"
        f"Append the public key to ~{target.user}/.ssh/authorized_keys on the host, or name the right user and key in"
        " provider.hosts"
    )


def _identities(target: Target, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys of files, then those of the ssh agent. A locked file counts as tried, and so does one that cannot be
    used (a FIDO key, a public key), unless the spec names it: then that raises Misconfigured."""
    for path in target.keys:
        try:
            yield str(path), paramiko.PKey.from_path(path)
        except TypeError:  # how the cryptography library says that a passphrase is needed
            tried.append(f"{path} (needs its passphrase: `ssh-add {path}`)")
        except (paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm, ValueError, OSError) as error:
            if target.host.key is not None:
                raise Misconfigured(
                    f"host {target.host.name}: {path} is no private key that can be used: {error}"
                ) from error
            tried.append(f"{path} (cannot be used: {error})")
    if target.use_agent:
        agent = paramiko.Agent()
        try:
            yield from (("a key of the ssh agent", key) for key in agent.get_keys())
        finally:
            agent.close()


def _converse(channel: paramiko.Channel, data: bytes, deadline: float) -> Ran:
    """Give the command its input and take in all it says, both outputs at once: neither may fill up."""
    errors = bytearray()
    reader = threading.Thread(target=_drain, args=(channel, errors, deadline), name="ssh-stderr", daemon=True)
    reader.start()
    channel.settimeout(_left(deadline))
    with suppress(OSError):  # it ended without reading all of it; its output says why
        channel.sendall(data)
        channel.shutdown_write()
    out = bytearray()
    while chunk := _within(channel, deadline).recv(_CHUNK):
        out += chunk
        if len(out) > MAX_OUTPUT:
            raise ProviderError(f"a command on the host printed more than {MAX_OUTPUT >> 20} MiB")
    reader.join(_left(deadline))
    if not channel.status_event.wait(_left(deadline)):
        raise TimeoutError
    status = channel.recv_exit_status()
    if status < 0:
        raise paramiko.SSHException("the connection broke while a command ran")
    return Ran(status=status, out=bytes(out), err=bytes(errors))


def _drain(channel: paramiko.Channel, into: bytearray, deadline: float) -> None:
    with suppress(OSError):  # the reader of the other output meets the same end, and tells
        while chunk := _within(channel, deadline).recv_stderr(_CHUNK):
            into += chunk[: MAX_OUTPUT - len(into)]


def _within(channel: paramiko.Channel, deadline: float) -> paramiko.Channel:
    channel.settimeout(_left(deadline))
    return channel


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _start_sftp(channel: paramiko.Channel) -> paramiko.SFTPClient:
    channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
