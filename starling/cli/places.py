"""Where a node can be worked in: its folder on this computer, on a host of yours, or on an instance."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from starling.cli.opening import OpenRun
from starling.infra.errors import UsageError
from starling.infra.home import node_folder, starling_home
from starling.infra.providers.base import Machine, Provider

if TYPE_CHECKING:
    from starling.infra.providers.ssh.connection import Connection

INSTANCE_FOLDER = PurePosixPath("/opt/starling/nodes")
SSH_PORT = 22
REACH_SECONDS = 3.0


class Place(Protocol):
    """One node's folder, wherever it lies. Paths are relative to it unless they begin with `/`."""

    @property
    def node(self) -> str:
        """Its id."""
        ...

    def shell(self) -> list[str]:
        """The command that opens a shell there."""
        ...

    def put(self, files: list[Path], path: str) -> list[str]:
        """Copy to `path`: a folder if it ends with `/`, is one, or has to hold several. Returns where they are."""
        ...

    def get(self, path: str, folder: Path) -> int:
        """Copy a file, or the plain files of a folder, into `folder`; returns how many."""
        ...


def places(run: OpenRun, node: str | None) -> list[Place]:
    """Of one node, or of all that run. Raises UsageError if it does not run, or cannot be reached from here."""
    provider = run.provider()
    living = {machine.node: machine for machine in provider.list(run.run) if machine.alive}
    if node is not None and node not in living:
        raise UsageError(f"run {run.run} has no running node {node}; running nodes: {', '.join(living) or 'none'}")
    if not living:
        raise UsageError(f"no node of run {run.run} runs at present (`starling status {run.run}` says when)")
    chosen = living.values() if node is None else [living[node]]
    return [_place(run, provider, machine) for machine in chosen]


def _place(run: OpenRun, provider: Provider, machine: Machine) -> Place:
    if provider.name == "local":
        return LocalPlace(node=machine.node, folder=node_folder(starling_home(), machine.node))
    section = run.provider_section()
    if provider.name == "ssh":
        return _on_host(provider, section, machine)
    return _on_instance(section, machine)


def _on_host(provider: Any, section: dict[str, Any], machine: Machine) -> RemotePlace:
    connection, folder = provider.place(machine.node)
    return RemotePlace(node=machine.node, folder=folder, connection=connection, known_hosts=section["known_hosts"])


def _on_instance(section: dict[str, Any], machine: Machine) -> RemotePlace:
    """Its security group lets nobody in from outside: only from a network of the user's that is joined with its own."""
    if machine.address is None or not _answers(machine.address):
        region = section.get("region")
        raise UsageError(
            f"node {machine.node} cannot be reached by ssh from here: no port of an instance is open to the outside. "
            f"With AWS's Session Manager plugin installed:\n"
            f"  aws ssm start-session --region {region} --target {machine.instance_id}"
        )
    from starling.infra.providers.ssh.connection import Connection
    from starling.infra.providers.ssh.hosts import Host

    connection = Connection(Host(address=machine.address))
    folder = INSTANCE_FOLDER / machine.node
    return RemotePlace(node=machine.node, folder=folder, connection=connection, known_hosts=None)


def _answers(address: str) -> bool:
    try:
        socket.create_connection((address, SSH_PORT), timeout=REACH_SECONDS).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalPlace:
    """A folder of this computer."""

    node: str
    folder: Path

    def shell(self) -> list[str]:
        return ["sh", "-c", 'cd "$1" && exec "${SHELL:-/bin/sh}"', "sh", str(self.folder)]

    def put(self, files: list[Path], path: str) -> list[str]:
        target = self.folder / path
        into = path.endswith("/") or target.is_dir() or len(files) > 1
        return [self._put(file, target / file.name if into else target) for file in files]

    def get(self, path: str, folder: Path) -> int:
        source = self.folder / path
        if not source.exists():
            raise UsageError(f"{source} is not there")
        files = [source] if source.is_file() else [file for file in sorted(source.rglob("*")) if _is_plain(file)]
        for file in files:
            _copy(file, folder / source.name / file.relative_to(source))
        return len(files)

    def _put(self, file: Path, target: Path) -> str:
        _copy(file, target)
        return str(target)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemotePlace:
    """A folder of a machine that ssh reaches."""

    node: str
    folder: PurePosixPath
    connection: Connection
    known_hosts: str | None

    def shell(self) -> list[str]:
        from shlex import quote

        from starling.infra.providers.ssh.hosts import ssh_options

        host = self.connection.host
        there = f'cd {quote(str(self.folder))} && exec "${{SHELL:-/bin/sh}}" -l'
        return ["ssh", *ssh_options(host, self.known_hosts), "-t", "--", host.address, there]

    def put(self, files: list[Path], path: str) -> list[str]:
        from starling.infra.providers.ssh.transfer import is_folder, put_file

        target = self.folder / path
        with self.connection.sftp() as sftp:
            into = path.endswith("/") or len(files) > 1 or is_folder(sftp, target)
            targets = [target / file.name if into else target for file in files]
            for file, place in zip(files, targets, strict=True):
                put_file(sftp, file, place)
        return [f"{self.connection.host.name}:{place}" for place in targets]

    def get(self, path: str, folder: Path) -> int:
        from starling.infra.providers.ssh.transfer import get_tree

        with self.connection.sftp() as sftp:
            return get_tree(sftp, self.folder / path, folder)


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _copy(source: Path, target: Path) -> None:
    """As a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy(source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
