"""An emulator of EC2's instance metadata service, version 2, for one local node.

Serves what a node reads: identity, placement, tags, its role's credentials, and the notices of an interruption or a
rebalance recommendation. As on EC2, every read needs a session token, and a notice that is not due answers 404.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from starling.infra.clock import Clock, SystemClock
from starling.infra.imds.times import to_timestamp
from starling.infra.records import Market

TOKEN_PATH = "/latest/api/token"
TOKEN_HEADER = "X-aws-ec2-metadata-token"
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
MAX_TTL_SECONDS = 21_600
ACCOUNT_ID = "000000000000"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who the node is."""

    instance_id: str
    instance_type: str
    zone: str
    region: str
    address: str
    market: Market
    launched_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleCredentials:
    """What an instance profile's role gives to its instance."""

    role: str
    access_key: str
    secret_key: str
    token: str
    """Empty for a server that knows of no session tokens."""
    expires_at: float


class ImdsServer:
    """Serves one node's metadata on a free loopback port from construction until `close`. Thread-safe."""

    def __init__(
        self,
        identity: Identity,
        *,
        tags: Mapping[str, str] | None = None,
        credentials: Callable[[], RoleCredentials] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`credentials` is asked at every read, so that they can be renewed; None: the instance has no role."""
        self._identity = identity
        self._tags = dict(tags or {})
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._interruption_at: float | None = None
        self._rebalance_at: float | None = None
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="imds", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """What belongs into AWS_EC2_METADATA_SERVICE_ENDPOINT."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def post_interruption(self, takes_effect_at: float) -> None:
        """Announce that the instance will be terminated at this time (served in whole seconds, rounded down)."""
        with self._lock:
            self._interruption_at = takes_effect_at

    def post_rebalance(self, noticed_at: float) -> None:
        """Recommend a rebalance: the instance has an elevated risk of being interrupted."""
        with self._lock:
            self._rebalance_at = noticed_at

    def tag(self, key: str, value: str) -> None:
        """On EC2, tags of a running instance appear here a little later."""
        with self._lock:
            self._tags = {**self._tags, key: value}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def issue_token(self, ttl: str | None) -> str | None:
        """A new session token; None if the asked lifetime is no whole number of seconds from 1 to 21,600."""
        if ttl is None or not ttl.isdecimal() or not 1 <= int(ttl) <= MAX_TTL_SECONDS:
            return None
        token = secrets.token_urlsafe(24)
        now = self._clock.now()
        with self._lock:
            self._tokens = {known: ends_at for known, ends_at in self._tokens.items() if ends_at > now}
            self._tokens[token] = now + int(ttl)
        return token

    def admits(self, token: str | None) -> bool:
        with self._lock:
            return token is not None and self._tokens.get(token, 0.0) > self._clock.now()

    def document(self, path: str) -> str | None:
        """What is served under a path; None for 404."""
        answer = {**self._documents(), **self._tag_documents(), **self._role_documents()}.get(path.rstrip("/"))
        return answer() if answer is not None else None

    def _documents(self) -> dict[str, Callable[[], str | None]]:
        me = self._identity
        return {
            "/latest/meta-data/instance-id": lambda: me.instance_id,
            "/latest/meta-data/instance-type": lambda: me.instance_type,
            "/latest/meta-data/instance-life-cycle": lambda: me.market.value,
            "/latest/meta-data/local-ipv4": lambda: me.address,
            "/latest/meta-data/placement/availability-zone": lambda: me.zone,
            "/latest/meta-data/placement/region": lambda: me.region,
            "/latest/dynamic/instance-identity/document": self._identity_document,
            "/latest/meta-data/spot/instance-action": self._instance_action,
            "/latest/meta-data/spot/termination-time": self._termination_time,
            "/latest/meta-data/events/recommendations/rebalance": self._rebalance,
        }

    def _tag_documents(self) -> dict[str, Callable[[], str | None]]:
        folder = "/latest/meta-data/tags/instance"
        listing = {folder: lambda: "\n".join(sorted(self._tags))} if self._tags else {}
        return {**listing, **{f"{folder}/{key}": partial(str, value) for key, value in self._tags.items()}}

    def _role_documents(self) -> dict[str, Callable[[], str | None]]:
        if self._credentials is None:
            return {}
        folder, now = "/latest/meta-data/iam/security-credentials", self._credentials()
        return {folder: lambda: now.role, f"{folder}/{now.role}": lambda: self._credentials_document(now)}

    def _credentials_document(self, credentials: RoleCredentials) -> str:
        document = {
            "Code": "Success",
            "LastUpdated": to_timestamp(self._clock.now()),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.token,
            "Expiration": to_timestamp(credentials.expires_at),
        }
        return json.dumps(document, indent=2)

    def _identity_document(self) -> str:
        me = self._identity
        document = {
            "accountId": ACCOUNT_ID,
            "architecture": "x86_64",
            "availabilityZone": me.zone,
            "instanceId": me.instance_id,
            "instanceType": me.instance_type,
            "pendingTime": to_timestamp(me.launched_at),
            "privateIp": me.address,
            "region": me.region,
            "version": "2017-09-30",
        }
        return json.dumps(document, indent=2)

    def _instance_action(self) -> str | None:
        with self._lock:
            at = self._interruption_at
        return None if at is None else json.dumps({"action": "terminate", "time": to_timestamp(at)})

    def _termination_time(self) -> str | None:
        with self._lock:
            at = self._interruption_at
        return None if at is None else to_timestamp(at)

    def _rebalance(self) -> str | None:
        with self._lock:
            at = self._rebalance_at
        return None if at is None else json.dumps({"noticeTime": to_timestamp(at)})


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, imds: ImdsServer) -> None:
        self.imds = imds
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up half-way is its own affair; nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    timeout = 10
    server: _Http

    def do_PUT(self) -> None:
        if self.path != TOKEN_PATH:
            self._answer(404, "")
            return
        token = self.server.imds.issue_token(self.headers.get(TTL_HEADER))
        if token is None:
            self._answer(400, "")
        else:
            self._answer(200, token, {TTL_HEADER: self.headers[TTL_HEADER]})

    def do_GET(self) -> None:
        if not self.server.imds.admits(self.headers.get(TOKEN_HEADER)):
            self._answer(401, "")
            return
        body = self.server.imds.document(self.path)
        self._answer(404 if body is None else 200, body or "")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name for it
        """Reads come every second; they are not worth a line each."""

    def _answer(self, code: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
