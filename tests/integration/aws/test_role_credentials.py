"""A store on a node whose metadata service is slow at first: its role's credentials are looked for again."""

from __future__ import annotations

import os
import threading
import time

import pytest

from starling.infra.errors import StoreAccessDenied
from starling.infra.imds.server import Identity, ImdsServer, RoleCredentials
from starling.infra.records import Market
from starling.infra.region.s3_server import S3Server
from starling.infra.store import open_store

NODE = Identity(
    instance_id="i-0123456789abcdef0",
    instance_type="g5.xlarge",
    zone="us-east-1a",
    region="us-east-1",
    address="127.0.0.1",
    market=Market.SPOT,
    launched_at=0.0,
)
PATIENCE = 30.0


def test_a_store_outlives_a_metadata_service_that_was_slow(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = s3_server.environment
    awake = threading.Event()

    def credentials() -> RoleCredentials:
        assert awake.wait(PATIENCE)
        return RoleCredentials(
            role="starling-node",
            access_key=keys["AWS_ACCESS_KEY_ID"],
            secret_key=keys["AWS_SECRET_ACCESS_KEY"],
            token="",
            expires_at=time.time() + 3600,
        )

    imds = ImdsServer(NODE, credentials=credentials)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint)
    try:
        store = open_store(s3_bucket)
        with pytest.raises(StoreAccessDenied, match="the machine's role"):
            store.put("k", b"v")
        awake.set()
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "30")  # by itself botocore waits for 1 s, once
        store.put("k", b"v")
        assert store.get("k").data == b"v"
    finally:
        awake.set()
        imds.close()
