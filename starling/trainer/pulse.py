"""Evidence of life and death among nodes.

A living member answers on its pulse port with its id. A refused connection, or another id, is proof that the process
is gone, at once; silence proves nothing (a lost packet, a firewall), so it is left to the missed heartbeats.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from starling.trainer.rendezvous_state import Member

log = logging.getLogger(__name__)

PROBE_TIMEOUT = 0.5
"""Seconds to wait for a peer's answer."""


class Pulse:
    """Answers every connection with this member's id until it is closed or the process dies."""

    def __init__(self, member_id: str, address: str) -> None:
        self._answer = member_id.encode()
        self._socket = socket.create_server((address, 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, name="pulse", daemon=True).start()

    def close(self) -> None:
        """From now on peers have proof that this member is gone."""
        if self._socket.fileno() < 0:
            return
        # shutdown() wakes the accepting thread; close() alone would leave the port listening until it returns.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self._answer)
                except OSError as error:
                    log.debug("a peer asked for a pulse and went away: %s", error)


def probe(members: Iterable[Member]) -> frozenset[str]:
    """Ids of those members of whom there is proof that their process is gone."""
    asked = list(members)
    if len(asked) <= 1:  # the usual question in a crowd is not worth a pool of threads
        return frozenset(m.id for m in asked if _is_dead(m))
    with ThreadPoolExecutor(min(32, len(asked))) as pool:
        return frozenset(m.id for m, dead in zip(asked, pool.map(_is_dead, asked), strict=True) if dead)


def _is_dead(member: Member) -> bool:
    try:
        with socket.create_connection((member.address, member.pulse_port), timeout=PROBE_TIMEOUT) as connection:
            answer = b""
            while chunk := connection.recv(256):
                answer += chunk
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return bool(answer) and answer != member.id.encode()
