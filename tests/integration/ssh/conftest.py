from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_hosts import SshHosts, ssh_hosts

from tests.support.ssh_server import SERVERS


@pytest.fixture
def plain_hosts(tmp_path: Path) -> Iterator[SshHosts]:
    """Two hosts with the server that is always there, for what does not depend on the server."""
    with ssh_hosts("paramiko", tmp_path) as hosts:
        yield hosts


@pytest.fixture(params=sorted(SERVERS))
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshHosts]:
    """Two hosts, served by paramiko's server side, and by OpenSSH where it is installed."""
    with ssh_hosts(request.param, tmp_path) as hosts:
        yield hosts
