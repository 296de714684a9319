"""Ports for servers that start later."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def hold_a_port() -> socket.socket:
    """Bound, so that nobody else is given its port, nor connects from there, as long as it is open; but not listening,
    so a server that reuses addresses, as all do, can listen there by the port's number, and come back later."""
    holding = socket.socket()
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holding.bind(("", 0))
    return holding


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that is held during the block."""
    with hold_a_port() as held:
        yield port_of(held)
