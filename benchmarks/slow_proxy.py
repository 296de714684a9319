"""A TCP proxy in a process of its own that counts what passes, and may hold every HTTP request up for a while.

It stands in for the distance to a real store: the connection is as wide as without it, only the first byte of each
answer comes later. Payloads are moved by the kernel (`splice`), so that it takes little of the machine.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

CHUNK = 2**20
"""Bytes moved at once; also the size asked for the pipe between the two sockets."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What passed since the last look."""

    requests: int
    answered_bytes: int
    """From the server to its clients, heads of the answers included."""


@dataclass(frozen=True, slots=True)
class SlowProxy:
    """A running proxy."""

    endpoint_url: str
    _control: Connection

    def counts(self) -> Counts:
        """What passed since the last call."""
        self._control.send(None)
        requests, answered = self._control.recv()
        return Counts(requests, answered)


@contextmanager
def slow_proxy(endpoint_url: str, delay: float = 0.0) -> Iterator[SlowProxy]:
    """Run one in front of an http endpoint; each request reaches it `delay` seconds late."""
    context = multiprocessing.get_context("spawn")  # the child shall inherit no socket of ours
    ours, theirs = context.Pipe()
    target = urlsplit(endpoint_url)
    process = context.Process(target=_serve, args=(target.hostname, target.port, delay, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield SlowProxy(f"http://127.0.0.1:{ours.recv()}", ours)
    finally:
        process.kill()
        process.join()
        ours.close()


class _Counter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._answered = 0

    def add(self, requests: int = 0, answered: int = 0) -> None:
        with self._lock:
            self._requests += requests
            self._answered += answered

    def taken(self) -> tuple[int, int]:
        with self._lock:
            counts = self._requests, self._answered
            self._requests = self._answered = 0
        return counts


def _serve(host: str, port: int, delay: float, control: Connection) -> None:
    counter = _Counter()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=_accept, args=(listener, (host, port), delay, counter), daemon=True).start()
    control.send(listener.getsockname()[1])
    with suppress(EOFError):  # whoever asks has gone
        while True:
            control.recv()
            control.send(counter.taken())


def _accept(listener: socket.socket, target: tuple[str, int], delay: float, counter: _Counter) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_relay, args=(client, target, delay, counter), daemon=True).start()


def _relay(client: socket.socket, target: tuple[str, int], delay: float, counter: _Counter) -> None:
    """One connection, until either side closes it. HTTP/1.1 takes turns on it, so bytes from the client that follow
    bytes from the server begin a new request."""
    with (
        client,
        suppress(ConnectionError, BrokenPipeError),
        socket.create_connection(target) as server,
        _Pipe() as pipe,
    ):
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answering = True
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if client in ready:
                if answering:
                    time.sleep(delay)
                    counter.add(requests=1)
                answering = False
                if not pipe.move(client, server, lambda _: None):
                    return
            if server in ready:
                answering = True
                if not pipe.move(server, client, lambda moved: counter.add(answered=moved)):
                    return


class _Pipe:
    """Moves bytes from one socket to another without copying them into this process."""

    def __enter__(self) -> _Pipe:
        self._out, self._in = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        os.close(self._in)

    def move(self, source: socket.socket, target: socket.socket, note: Callable[[int], None]) -> int:
        """What is there, up to CHUNK bytes; 0 at the end of the stream. `note` hears of them before `target` does, who
        may ask at once how many there were."""
        moved = os.splice(source.fileno(), self._in, CHUNK)
        note(moved)
        left = moved
        while left:
            left -= os.splice(self._out, target.fileno(), left)
        return moved
