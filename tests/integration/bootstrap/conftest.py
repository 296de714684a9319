"""An instance that boots from a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from starling.infra.region.s3_server import S3Server
from starling.infra.store import Store
from tests.support.booting import BootMachine, boot_machine


@pytest.fixture
def machine(s3_store: Store, s3_server: S3Server) -> Iterator[BootMachine]:
    with boot_machine(s3_store, s3_server) as machine:
        yield machine
