"""An HTTP proxy on loopback that stands before a real server and makes trouble as scripted."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Trouble(Enum):
    """What happens to a request."""

    ANSWER = auto()
    """The server never sees it; the client gets `status` and `code`."""
    HANG = auto()
    """Nobody answers for `seconds`, or until the proxy ends; then the connection breaks."""
    SLOW = auto()
    """Passed on, but only after `seconds`."""
    RESET = auto()
    """The connection breaks before the server sees it."""
    LOSE_ANSWER = auto()
    """The server does it, and the connection breaks before the client hears."""
    CUT = auto()
    """The client gets the first half of the body."""
    TEAR = auto()
    """The server gets the first half of the body, then both connections break."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """Troubles one kind of request, so many times."""

    trouble: Trouble
    method: str
    """`*`: any."""
    times: int | None = 1
    """None: until `clear`."""
    probability: float = 1.0
    """Chance of each request that it fits."""
    seconds: float | None = None
    """For HANG (None: until the proxy ends) and SLOW."""
    query: str = ""
    """Part of the request's URL."""
    status: int = 503
    code: str = "SlowDown"


@dataclass
class FlakyProxy:
    """Passes requests on to `upstream` (host, port), except the scripted ones."""

    upstream: tuple[str, int]
    endpoint_url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every request."""
    connections: list[int] = field(default_factory=list)
    """The client's port of every request."""
    chance: random.Random = field(default_factory=random.Random)
    _left: list[list[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def play(self, trouble: Trouble, method: str, **more: Any) -> None:
        """From now on; see Script."""
        script = Script(trouble=trouble, method=method, **more)
        with self._lock:
            self._left.append([script, script.times])

    def clear(self) -> None:
        """From now on no script hits anything."""
        with self._lock:
            self._left.clear()

    def next_for(self, method: str, path: str, port: int) -> Script | None:
        """Count a request; say which script hits it."""
        with self._lock:
            self.seen.append((method, path))
            self.connections.append(port)
            for entry in self._left:
                script, left = entry
                fits = script.method in ("*", method) and script.query in path
                if fits and left != 0 and self.chance.random() < script.probability:
                    entry[1] = left if left is None else left - 1
                    return script  # type: ignore[no-any-return]
        return None

    def count(self, method: str) -> int:
        """How many requests of this method came."""
        return sum(seen == method for seen, _ in self.seen)


@contextmanager
def flaky_proxy(upstream: tuple[str, int]) -> Iterator[FlakyProxy]:
    """Run a proxy until the end of the block."""
    proxy = FlakyProxy(upstream=upstream)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy
    proxy.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    proxy: FlakyProxy
    daemon_threads = True  # idle kept-alive connections must not hold up the end
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may be killed in the middle of a request
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        script = self.server.proxy.next_for(self.command, self.path, self.client_address[1])
        trouble = script.trouble if script else None
        if script and trouble in (Trouble.HANG, Trouble.SLOW):
            self.server.proxy.ended.wait(script.seconds)
        if script and trouble is Trouble.ANSWER:
            self._answer(script.status, _error_body(script.code), [("Content-Type", "application/xml")])
        elif trouble in (Trouble.RESET, Trouble.HANG):
            self._reset()
        elif trouble is Trouble.TEAR:
            self._tear(body)
        else:
            self._pass_on(body, trouble)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815  # the base class looks for these names

    def _tear(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._passed_headers().items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[: len(body) // 2])
        finally:
            connection.close()
        self._reset()

    def _passed_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}

    def _pass_on(self, body: bytes, trouble: Trouble | None) -> None:
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, self._passed_headers())
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if trouble is Trouble.LOSE_ANSWER:
            self._reset()
            return
        passed = [(name, value) for name, value in answer.getheaders() if name.lower() not in _BETWEEN_TWO_HOPS]
        self._answer(
            answer.status, content, passed, length=answer.getheader("Content-Length"), cut=trouble is Trouble.CUT
        )

    def _answer(
        self,
        status: int,
        content: bytes,
        headers: list[tuple[str, str]],
        *,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def _reset(self) -> None:
        # Closed with unsent data discarded, the client sees "connection reset by peer".
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class' name
        """Quiet."""


_BETWEEN_TWO_HOPS = ("content-length", "transfer-encoding", "connection", "keep-alive")


def _error_body(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>scripted</Message></Error>'.encode()
