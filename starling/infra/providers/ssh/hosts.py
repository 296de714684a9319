"""Which hosts there are, and how each is reached: the spec's words, completed from ~/.ssh/config as ssh itself does."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from starling.infra.errors import Misconfigured

SSH_PORT = 22
DEFAULT_ROOT = "~/.starling/node"
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """One host, as the spec names it."""

    address: str
    """Name, IP address, or an alias in ~/.ssh/config."""
    user: str | None = None
    port: int | None = None
    key: str | None = None
    gpus: int = 0
    python: str = "python3"
    price_per_hour: float = 0.0
    private_address: str | None = None
    """How the other hosts reach it, if not by `address`."""

    @property
    def name(self) -> str:
        """What it is called in offers and messages; no two hosts of a spec share one."""
        return self.address if self.port in (None, SSH_PORT) else _with_port(self.address, self.port, always=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class SshChoice:
    """The plain values of a spec's `provider` section."""

    hosts: tuple[Host, ...]
    known_hosts: str | None = None
    root: str = DEFAULT_ROOT

    @classmethod
    def from_section(cls, section: dict[str, Any]) -> SshChoice:
        """`section` is the resolved one, with every default filled in."""
        hosts = tuple(Host(**host) for host in section["hosts"])
        return cls(hosts=hosts, known_hosts=section["known_hosts"], root=section["root"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Everything a connection needs to know."""

    host: Host
    hostname: str
    port: int
    user: str
    keys: tuple[Path, ...]
    """Private keys to try, in this order; files that may be missing are left out."""
    use_agent: bool
    proxy: tuple[str, ...] | None
    """The words of a command whose input and output lead to the host."""
    known_hosts: tuple[Path, ...]
    known_as: str
    """The name under which known_hosts has its key."""


def resolve(host: Host, known_hosts: str | None, ssh_folder: Path | None = None) -> Target:
    """How to reach a host. The spec's words win over those of ~/.ssh/config.

    Raises Misconfigured for a key or a known_hosts that is named but is not there.
    """
    folder = ssh_folder or Path.home() / ".ssh"
    config = _config(folder / "config", host).lookup(host.address)
    hostname = str(config["hostname"])
    port = int(config.get("port", SSH_PORT))
    user = str(config.get("user") or getpass.getuser())
    return Target(
        host=host,
        hostname=hostname,
        port=port,
        user=user,
        keys=_keys(host, config, folder),
        use_agent=config.get("identitiesonly", "no") != "yes",
        proxy=_proxy(config, hostname, port),
        known_hosts=_known_hosts(known_hosts, folder),
        known_as=config.get("hostkeyalias") or _with_port(hostname, port),
    )


def ssh_options(host: Host, known_hosts: str | None) -> list[str]:
    """What the system's own `ssh` must be told to reach the host as we do; the rest it reads in ~/.ssh/config."""
    options = ["-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no"]
    if known_hosts is not None:
        options += ["-o", f"UserKnownHostsFile={Path(known_hosts).expanduser()}"]
    if host.user is not None:
        options += ["-l", host.user]
    if host.port is not None:
        options += ["-p", str(host.port)]
    if host.key is not None:
        options += ["-i", str(Path(host.key).expanduser())]
    return options


def _config(path: Path, host: Host) -> paramiko.SSHConfig:
    """The spec's words come before those of the file, so they win wherever a port or user counts: %p and %r, too."""
    ours = [f"  Port {host.port}\n"] if host.port is not None else []
    ours += [f"  User {host.user}\n"] if host.user is not None else []
    try:
        # What stands before the first `Host` of the file is for every host.
        theirs = "Host *\n" + path.read_text() if path.is_file() else ""
        return paramiko.SSHConfig.from_text("Host *\n" + "".join(ours) + theirs)
    except paramiko.SSHException as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error


def _keys(host: Host, config: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    if host.key is not None:
        path = Path(host.key).expanduser()
        if not path.is_file():
            raise Misconfigured(f"host {host.name}: its key {host.key} is not there; name the file of a private key")
        return (path,)
    named = [Path(name).expanduser() for name in config.get("identityfile", [])]
    return tuple(path for path in named or [folder / name for name in USUAL_KEYS] if path.is_file())


def _proxy(config: dict[str, Any], hostname: str, port: int) -> tuple[str, ...] | None:
    """As OpenSSH does: a ProxyCommand is the shell's, ProxyJump an ssh to the jump host that passes bytes on."""
    command = config.get("proxycommand")
    if command is not None:
        return None if command == "none" else ("/bin/sh", "-c", f"exec {command}")
    jump = config.get("proxyjump", "none")
    if jump == "none":
        return None
    *before, last = (hop.strip() for hop in jump.split(","))
    first = ("-J", ",".join(before)) if before else ()
    return ("ssh", *first, "-W", _with_port(hostname, port, always=True), "--", _destination(last))


def _destination(hop: str) -> str:
    """A jump host as `ssh` takes it for its destination, where a port may stand in a URI only."""
    with_port = re.fullmatch(r"([^@]*@)?([^:@\[\]]+:\d+|\[[^\]]+\](:\d+)?)", hop)
    return f"ssh://{hop}" if with_port else hop


def _known_hosts(named: str | None, folder: Path) -> tuple[Path, ...]:
    if named is None:
        usual = (folder / "known_hosts", Path("/etc/ssh/ssh_known_hosts"))
        return tuple(path for path in usual if path.is_file())
    path = Path(named).expanduser()
    if not path.is_file():
        raise Misconfigured(f"provider.known_hosts: {named} is not there")
    return (path,)


def _with_port(hostname: str, port: int, *, always: bool = False) -> str:
    """As known_hosts and `ssh -W` write it."""
    if always:
        return f"{hostname}:{port}" if ":" not in hostname else f"[{hostname}]:{port}"
    return hostname if port == SSH_PORT else f"[{hostname}]:{port}"
